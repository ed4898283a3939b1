#!lua flags=allow-oom
-- Records something of a running event: a finished step (`step:<name>`) and its result, or the handler it is in
-- (`handling`). Returns 1, or 0 if the token is no longer current.
-- ARGV  id, token, name of the field, value (JSON)
local key = event_key(ARGV[1])
local record = fields(ARGV[1], 'token', 'state')
if record[1] ~= ARGV[2] or record[2] ~= 'running' then return 0 end
redis.call('HSET', key, ARGV[3], ARGV[4])
return 1
