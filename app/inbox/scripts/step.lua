#!lua flags=allow-oom
-- Records a finished step of a running event. Returns 1, or 0 if the token is no longer current.
-- ARGV  id, token, step, result (JSON)
local key = event_key(ARGV[1])
local record = fields(ARGV[1], 'token', 'state')
if record[1] ~= ARGV[2] or record[2] ~= 'running' then return 0 end
redis.call('HSET', key, 'step:' .. ARGV[3], ARGV[4])
return 1
