#!lua flags=allow-oom
-- Takes the turn of a resource for a running event, or has the event wait for it without a worker.
--
-- ARGV  id, token, resource, longest wait (ms).  Returns 1: it is its turn; 0: it waits (or the token is stale)
--
-- Who has the turn passes it on when its attempt ends. Should that get lost, the longest wait heals it.
local refused = refusal('running', 'retrying')
if refused then return refused end

local id, resource = ARGV[1], ARGV[3]
local key, turn = event_key(id), P .. 'turn:' .. resource
local record = fields(id, 'token', 'state', 'received', 'attempt')
if record[1] ~= ARGV[2] or record[2] ~= 'running' then return 0 end

clear_misfit(turn, 'string')
local holder = redis.call('GET', turn)
local state = holder and holder ~= id and fields(holder, 'state')[1]
if state == 'queued' or state == 'running' then
  redis.call('ZREM', P .. 'running', id)
  redis.call('HSET', key, 'attempt', math.max((tonumber(record[4]) or 1) - 1, 0))
  clear_misfit(P .. 'line:' .. resource, 'zset')
  redis.call('ZADD', P .. 'line:' .. resource, tonumber(record[3]) or NOW, id)
  redis.call('EXPIRE', P .. 'line:' .. resource, TURN_LIFE)
  retry(id, tonumber(ARGV[4]))
  return 0
end
redis.call('SET', turn, id, 'EX', TURN_LIFE)
redis.pcall('ZREM', P .. 'line:' .. resource, id)
redis.call('HSET', key, 'turn', resource)
return 1
