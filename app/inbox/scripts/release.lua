#!lua flags=allow-oom
-- Ends the attempts of a worker that is known to be dead, without waiting for its lease to run out.
-- ARGV  worker, message, max attempts, retention (s), whether it uses up an attempt: '1' | ''.  Returns the ids.
local refused = refusal('open', 'queued', 'running', 'retrying', 'dead', 'broken', 'wake', 'LIST')
if refused then return refused end

local released = {}
for _, id in ipairs(redis.call('ZRANGE', P .. 'running', 0, -1)) do  -- as many as there are workers
  local record = fields(id, 'worker', 'turn', 'attempt')
  if record[1] == ARGV[1] then
    if ARGV[5] == '1' then
      crash(id, ARGV[2], tonumber(ARGV[3]), ARGV[4])
    else
      redis.call('ZREM', P .. 'running', id)
      redis.call('HSET', event_key(id), 'attempt', math.max((tonumber(record[3]) or 1) - 1, 0))
      pass_turn(id, record[2])
      retry(id, 0)
    end
    released[#released + 1] = id
  end
end
return released
