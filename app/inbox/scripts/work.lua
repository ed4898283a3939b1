#!lua flags=allow-oom
-- One round trip of a worker: ends the attempt in hand, if there is one, and starts the next.
--
-- ARGV  one JSON object:
--   worker, lease (ms), retention (s)
--   want    'next' | an event id | ''
--   counted what was measured, if there is something: for each hash, how many fields it may have, then names, what
--           takes the place of a new one when there are too many, and by how much each grows
--   ended   the attempt to end, if there is one:
--     id, token (as text), outcome: 'done' | 'retry' | 'dead', delay (ms)
--     attempt    its line of the history (JSON, as text)
--     fields     names and values, in turn, to write into the record
--     uncounted  whether it was only a wait: it leaves no line, and the number of attempts as it was
--     unhandled  whether nobody wants the event
--     errors     the classes of the errors in it
--     handled    {resource, occurred (s), handlers}: which handlers have finished, for `superseded`
-- Returns {ended, next, paused}
--   ended  1: recorded; 0: the token is no longer current, so nothing was changed; -1: there was none to end
--   next   the event's id and its record | 'suspended' | false
--   paused what is paused, but for everything: names, each followed by how long it still is (ms; 0: until it is ended)

local refused = refusal('open', 'queued', 'running', 'retrying', 'done', 'dead', 'broken', 'wake', 'LIST')
if refused then return refused end

local given = cjson.decode(ARGV[1])

-- A handler's newest event of a resource never gets older, in whatever order its events are done.
local function note_handled(handled)
  local key, entries = P .. 'handled:' .. handled.resource, {}
  for _, handler in ipairs(handled.handlers) do
    entries[#entries + 1] = handled.occurred
    entries[#entries + 1] = handler
  end
  clear_misfit(key, 'zset')
  redis.call('ZADD', key, 'GT', unpack(entries))
  redis.call('EXPIRE', key, given.retention)
end

local function finish(ended)
  local id, outcome, key = ended.id, ended.outcome, event_key(ended.id)
  local record = fields(id, 'token', 'state', 'attempt:' .. ended.token, 'turn', 'attempt', 'received')
  if record[1] ~= ended.token then return 0 end
  if record[2] ~= 'running' then
    if record[3] == ended.attempt or ended.uncounted then return 1 end  -- asked again, because the reply was lost
    -- The lease has run out, but nobody has begun anew: what is done is done, and need not run again.
    if outcome ~= 'done' or (record[2] ~= 'queued' and record[2] ~= 'retrying') then return 0 end
  end
  redis.call('ZREM', P .. record[2], id)
  local changes = ended.fields
  if ended.uncounted then  -- and no line in its history: there may be any number of them
    redis.call('HSET', key, 'attempt', math.max((tonumber(record[5]) or 1) - 1, 0))
  else
    changes[#changes + 1] = 'attempt:' .. ended.token
    changes[#changes + 1] = ended.attempt
  end
  if #changes > 0 then redis.call('HSET', key, unpack(changes)) end
  count('attempts:' .. (ended.uncounted and 'wait' or outcome))
  if ended.unhandled then count('events:unhandled') end
  if ended.handled then note_handled(ended.handled) end
  local received = tonumber(record[6]) or NOW
  if outcome ~= 'done' and not ended.uncounted then
    index_errors(id, received, ended.errors)
    count_indexed(1)
  end
  pass_turn(id, record[4])
  if outcome == 'retry' then
    retry(id, ended.delay)
  else
    close(id, outcome, given.retention, received)
    count('events:' .. outcome)
  end
  return 1
end

local function measure(hash, given)
  local key = P .. 'measured:' .. hash
  clear_misfit(key, 'hash')
  local left = given[1] - redis.call('HLEN', key)
  for i = 2, #given, 3 do
    local name = given[i]
    if left <= 0 and redis.call('HEXISTS', key, name) == 0 then name = given[i + 1] end
    if redis.call('HINCRBY', key, name, given[i + 2]) == given[i + 2] then left = left - 1 end
  end
end

-- What is paused now (app/inbox/paused.py), and whether that is everything.
local function pauses()
  local found, everything = {}, false
  local stored = redis.pcall('HGETALL', P .. 'paused')
  if stored.err then return found, false end
  for i = 1, #stored, 2 do
    local ends = tonumber(string.match(stored[i + 1], '^(%d+) '))
    if ends and ends > 0 and ends <= NOW then
      redis.call('HDEL', P .. 'paused', stored[i])
    elseif ends and stored[i] == '*' then
      everything = true
    elseif ends then
      found[#found + 1] = stored[i]
      found[#found + 1] = ends > 0 and ends - NOW or 0
    end
  end
  return found, everything
end

local function next_lease()
  for _ = 1, 100 do  -- instructions whose event needs nothing any more are dropped
    local id = redis.call('LPOP', LIST)
    if not id then return false end
    redis.call('DEL', RQ .. ':job:' .. id)
    local record = lease(id, given.worker, given.lease)
    if record then
      if redis.call('LLEN', LIST) > 0 then wake() end
      return { id, record }
    end
  end
  wake()
  return false
end

local ended, taken = -1, false
if given.ended then ended = finish(given.ended) end
for hash, counted in pairs(given.counted or {}) do
  pcall(measure, hash, counted)  -- whatever is wrong with it: no event is to wait for a metric
end
local paused, everything, suspended = {}, false, false
if given.want ~= '' and redis.call('EXISTS', P .. 'paused', RQ .. ':suspended') > 0 then  -- hardly ever
  paused, everything = pauses()
  suspended = given.want == 'next' and redis.call('EXISTS', RQ .. ':suspended') == 1  -- stock workers see to that
end
if everything or suspended then
  taken = 'suspended'
elseif given.want == 'next' then
  taken = next_lease()
elseif given.want ~= '' then
  local record = lease(given.want, given.worker, given.lease)
  if record then taken = { given.want, record } end  -- a nil would cut the reply short
end
return { ended, taken, paused }
