#!lua flags=allow-oom
-- One round trip of a worker: ends the attempt in hand, if there is one, and starts the next.
--
-- ARGV  worker, lease (ms), retention (s), want: 'next' | an event id | ''
--       and to end an attempt: id, token, outcome: 'done' | 'retry' | 'dead', delay (ms), attempt (JSON),
--       unhandled: '1' | '', uncounted: '1' | '', resource, occurred at (s)
-- Returns {ended, next}
--   ended  1: recorded; 0: the token is no longer current, so nothing was changed; -1: there was none to end
--   next   the event's id and its record | 'suspended' | false

local refused = refusal('open', 'queued', 'running', 'retrying', 'done', 'dead', 'broken', 'wake', 'LIST')
if refused then return refused end

local worker, length, retention, want = ARGV[1], tonumber(ARGV[2]), ARGV[3], ARGV[4]

local function note_latest(resource, occurred)
  local key = P .. 'latest:' .. resource
  if occurred > (tonumber(redis.pcall('GET', key)) or 0) then redis.call('SET', key, occurred, 'EX', retention) end
end

local function finish(id, token, outcome, delay, attempt, unhandled, uncounted, resource, occurred)
  local key = event_key(id)
  local record = fields(id, 'token', 'state', 'attempt:' .. token, 'turn', 'attempt')
  if record[1] ~= token then return 0 end
  if record[2] ~= 'running' then
    if record[3] == attempt or uncounted == '1' then return 1 end  -- asked again, because the reply was lost
    -- The lease has run out, but nobody has begun anew: what is done is done, and need not run again.
    if outcome ~= 'done' or (record[2] ~= 'queued' and record[2] ~= 'retrying') then return 0 end
  end
  redis.call('ZREM', P .. record[2], id)
  if uncounted == '1' then
    redis.call('HSET', key, 'attempt', math.max((tonumber(record[5]) or 1) - 1, 0))  -- and no line in its history: there may be any number of them
  else
    redis.call('HSET', key, 'attempt:' .. token, attempt)
  end
  count('attempts:' .. outcome)
  if unhandled == '1' then count('events:unhandled') end
  pass_turn(id, record[4])
  if outcome == 'retry' then
    retry(id, tonumber(delay))
  else
    if outcome == 'done' and resource ~= '' then note_latest(resource, tonumber(occurred)) end
    close(id, outcome, retention)
    count('events:' .. outcome)
  end
  return 1
end

local function next_lease()
  if redis.call('EXISTS', RQ .. ':suspended') == 1 then return 'suspended' end
  for _ = 1, 100 do  -- instructions whose event needs nothing any more are dropped
    local id = redis.call('LPOP', LIST)
    if not id then return false end
    redis.call('DEL', RQ .. ':job:' .. id)
    local record = lease(id, worker, length)
    if record then
      if redis.call('LLEN', LIST) > 0 then wake() end
      return { id, record }
    end
  end
  wake()
  return false
end

local ended, taken = -1, false
if ARGV[5] then ended = finish(unpack(ARGV, 5, 13)) end
if want == 'next' then
  taken = next_lease()
elseif want ~= '' then
  local record = lease(want, worker, length)
  if record then taken = { want, record } end  -- a nil would cut the reply short
end
return { ended, taken }
