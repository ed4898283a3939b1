#!lua
-- Which keys a receiver holds, and how many deliveries each has verified since that receiver said so last.
--
-- ARGV  days for which deliveries are counted, keys that are remembered at most, then of each key: its fingerprint,
--       '1' if it is still held, deliveries verified, how long ago the last of them was (ms)
-- Returns since when each of them is known
--
-- Of a key there are the fields <fingerprint>:since, :held (when a receiver last held it), :last (when it last verified
-- a delivery) and :day:<n> (deliveries of a day, by its number since 1970). A key that no receiver holds any more stays
-- until newer ones need its place.

local KEY, DAY = P .. 'keys', 'day:'
local today = math.floor(NOW / 86400000)

local function number(field) return tonumber(redis.call('HGET', KEY, field) or 0) or 0 end
local function ms(value) return string.format('%d', value) end

-- What is older than the days that are counted goes, and so do the keys that were held least lately.
local function tidy(days, most)
  local keys = {}
  for _, field in ipairs(redis.call('HKEYS', KEY)) do
    local key, what = string.match(field, '^(%x+):(.+)$')
    local day = what and tonumber(string.match(what, '^day:(%d+)$'))
    if what == 'held' then keys[#keys + 1] = {name = key, held = number(field)} end
    if day and day <= today - days then redis.call('HDEL', KEY, field) end
  end
  table.sort(keys, function(one, other) return one.held > other.held end)
  for i = most + 1, #keys do
    for _, field in ipairs(redis.call('HKEYS', KEY)) do
      if string.sub(field, 1, #keys[i].name + 1) == keys[i].name .. ':' then redis.call('HDEL', KEY, field) end
    end
  end
end

local since, is_new = {}, false
for i = 3, #ARGV, 4 do
  local key, verified, ago = ARGV[i] .. ':', tonumber(ARGV[i + 2]), tonumber(ARGV[i + 3])
  if number(key .. 'since') == 0 then
    redis.call('HSET', KEY, key .. 'since', ms(NOW))
    is_new = true
  end
  if ARGV[i + 1] == '1' then redis.call('HSET', KEY, key .. 'held', ms(NOW)) end
  if verified > 0 then
    redis.call('HSET', KEY, key .. 'last', ms(math.max(NOW - ago, number(key .. 'last'))))
    is_new = redis.call('HINCRBY', KEY, key .. DAY .. today, verified) == verified or is_new
  end
  since[#since + 1] = number(key .. 'since')
end
if is_new then tidy(tonumber(ARGV[1]), tonumber(ARGV[2])) end
return since
