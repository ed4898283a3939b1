#!lua flags=allow-oom
-- A pause has ended: what waited for that is due now.
--
-- ARGV  what waiting handlers say that they wait for, then the ids of events
-- Returns how many of the events have waited for it

local woken = 0
for i = 2, #ARGV do
  local id, waited = ARGV[i], false
  if fields(id, 'state')[1] == 'retrying' then
    for _, field in ipairs(redis.call('HKEYS', event_key(id))) do
      if string.sub(field, 1, 6) == 'tries:' then
        local known, tries = pcall(cjson.decode, redis.call('HGET', event_key(id), field))
        if known and type(tries) == 'table' and tries[3] == ARGV[1] and tries[2] ~= cjson.null then
          redis.call('HSET', event_key(id), field, cjson.encode({ tries[1], NOW, tries[3] }))
          waited = true
        end
      end
    end
  end
  if waited then
    redis.call('ZADD', P .. 'retrying', NOW, id)
    woken = woken + 1
  end
end
return woken
