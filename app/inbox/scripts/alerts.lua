#!lua flags=allow-oom
-- Whose turn it is to look for alerts, and what the one whose turn it is has to keep.
--
-- Of many supervisors one looks at a time. Its turn ends by itself should it die; and once another one's has begun,
-- nothing that it says is kept any more.
--
-- ARGV  'begin', token, time between two looks (ms), length of a turn (ms), how long all is kept (s)
--       Returns 1 if a turn has begun, else 0
-- ARGV  'keep', token, 'end' if the turn ends with it | '', then names and values: of fields (an empty value removes
--       one), or with a + before the name of a counter, by how much it grows
--       Returns 1, or 0 if it is not this one's turn any more
local refused = refusal('alerts')
if refused then return refused end

local KEY = P .. 'alerts'
local held = redis.call('HMGET', KEY, 'turn', 'looked')
local holder, ends = string.match(held[1] or '', '^(%S+) (%d+)$')

if ARGV[1] == 'begin' then
  local between, length, looked = tonumber(ARGV[3]), tonumber(ARGV[4]), tonumber(held[2]) or 0
  local left = (tonumber(ends) or 0) - NOW
  if left > 0 and left <= length then return 0 end  -- more than a turn: the clock was set back
  if looked <= NOW and NOW - looked < between then return 0 end
  redis.call('HSET', KEY, 'turn', ARGV[2] .. string.format(' %d', NOW + length), 'looked', NOW)
  redis.call('EXPIRE', KEY, ARGV[5])
  return 1
end

if holder ~= ARGV[2] then return 0 end
if ARGV[3] == 'end' then redis.call('HDEL', KEY, 'turn') end
for i = 4, #ARGV, 2 do
  local name, value = ARGV[i], ARGV[i + 1]
  if string.sub(name, 1, 1) == '+' then
    count(string.sub(name, 2), value)
  elseif value == '' then
    redis.call('HDEL', KEY, name)
  else
    redis.call('HSET', KEY, name, value)
  end
end
return 1
