#!lua flags=allow-oom
-- Heals and tidies, at most once per interval whoever asks: every unfinished event is either in line,
-- leased, or waiting for its time; what has been forgotten on the way is found here (P2).
--
-- ARGV  RQ job, interval (ms), patience (ms), most of each kind, max attempts, retention (s), lease (ms), slice,
--       time to make others findable (ms)
-- Returns {due, expired, lost, trimmed, mended, broken, misfits}, or an empty list if it is not yet time.
--   mended   how many unfinished events were in no index, or in a wrong one, and are where they belong again
--   broken   the ids of events set aside, because their record is gone or cannot be read
--   misfits  the keys that were of another type than they have to be, and were renamed

local interval, patience, most = tonumber(ARGV[2]), tonumber(ARGV[3]), tonumber(ARGV[4])
local max_attempts, retention, length = tonumber(ARGV[5]), tonumber(ARGV[6]), tonumber(ARGV[7])
local size_of_slice, round_ms = tonumber(ARGV[8]), tonumber(ARGV[9])

-- A shared key of another type cannot be used, and no other script runs as long as it is there. What it held is
-- put together again below.
local misfits = {}
for name in pairs(SHARED) do
  if misfit(name) then
    local key, kept = shared_key(name), P .. 'misfit:' .. name
    redis.call('RENAME', key, kept)
    redis.call('EXPIRE', kept, BROKEN_LIFE)
    misfits[#misfits + 1] = key
  end
end

local since = NOW - (tonumber(redis.call('GET', P .. 'swept')) or 0)
if #misfits == 0 and since >= 0 and since < interval then return {} end
redis.call('SET', P .. 'swept', NOW)
set_job(ARGV[1])

-- The clock was set back: what waits for its time would wait for so much longer, and so would a lease.
-- (A retry put off in the second since then comes early.)
local function follow_clock_back(by)
  for _, id in ipairs(redis.call('ZRANGE', P .. 'retrying', '(' .. NOW, '+inf', 'BYSCORE')) do
    redis.call('ZINCRBY', P .. 'retrying', -by, id)
  end
  for _, id in ipairs(redis.call('ZRANGE', P .. 'running', 0, -1)) do  -- as many as there are workers
    local started = tonumber(fields(id, 'started')[1]) or 0
    if started > NOW then redis.call('ZINCRBY', P .. 'running', -by, id) end
  end
end
if since < 0 then follow_clock_back(-since) end

local mended = 0
local STATES = { queued = true, running = true, retrying = true, done = true, dead = true }

-- Sees to it that an event is in the index of its state, and in no other.
local function mend(id)
  local key = event_key(id)
  local state = redis.pcall('HGET', key, 'state')
  if not STATES[state] then return set_aside(id) end
  local received = tonumber(redis.call('HGET', key, 'received'))
  if not received or redis.call('HEXISTS', key, 'meta') + redis.call('HEXISTS', key, 'body') < 2 then
    return set_aside(id)
  end
  if NOW - received > late_after(retention) then keep_findable(id, received, rows_live(retention)) end
  if state == 'done' or state == 'dead' then
    close(id, state, retention, received)
  elseif redis.call('ZSCORE', P .. state, id) then
    return
  elseif state == 'queued' then
    redis.call('ZADD', P .. 'queued', math.min(received, NOW), id)  -- if it is not in line, it is found lost below
  elseif state == 'running' then
    redis.call('ZADD', P .. 'running', NOW + length, id)  -- its worker may be alive: it gets a whole lease
  else
    redis.call('ZADD', P .. 'retrying', NOW, id)  -- when it was due is not known any more
  end
  mended = mended + 1
end

-- Unfinished events that are in no index: slice after slice of `open`. What `open` itself has lost is in the others.
if redis.call('EXISTS', P .. 'open') == 0 then
  redis.call('ZUNIONSTORE', P .. 'open', 3, P .. 'queued', P .. 'running', P .. 'retrying')
end
local cursor = string.match(redis.call('GET', P .. 'cursor') or '', '^%d+$') or '0'
local slice = redis.call('ZSCAN', P .. 'open', cursor, 'COUNT', size_of_slice)
redis.call('SET', P .. 'cursor', slice[1])
for i = 1, #slice[2], 2 do mend(slice[2][i]) end

local function until_(zset, limit) return redis.call('ZRANGE', P .. zset, '-inf', limit, 'BYSCORE', 'LIMIT', 0, most) end

-- The ids in an index that are due by then. An entry whose event is in another state goes: it would come again for ever.
local function due_by(index, limit)
  local due = {}
  for _, id in ipairs(until_(index, limit)) do
    if fields(id, 'state')[1] == index then
      due[#due + 1] = id
    else
      redis.call('ZREM', P .. index, id)
      mend(id)
    end
  end
  return due
end

-- Workers that vanished without a word: their leases have run out.
local expired = due_by('running', NOW)
for _, id in ipairs(expired) do crash(id, 'The lease ran out: the worker vanished or hung.', max_attempts, retention) end

local due = due_by('retrying', NOW)
for _, id in ipairs(due) do requeue(id, 'retrying') end

-- The RQ list is first in, first out: what was queued before its head and is still "queued" has left
-- the list without being leased. Found without reading the list, however long it is.
local horizon = NOW - patience
for _ = 1, most do
  local head = redis.call('LINDEX', LIST, 0)
  if not head then break end
  local queued_at = tonumber(redis.call('ZSCORE', P .. 'queued', head))
  if not queued_at and fields(head, 'state')[1] == 'queued' then
    redis.call('ZADD', P .. 'queued', NOW, head)  -- its index was deleted by hand
    queued_at = NOW
  end
  if queued_at then
    -- A head from the future was queued before the clock was set back: the order tells nothing until it is through.
    horizon = queued_at > NOW and 0 or math.min(horizon, queued_at - 1)
    break
  end
  redis.call('LPOP', LIST)  -- an instruction whose event needs nothing any more
  redis.call('DEL', RQ .. ':job:' .. head)
end
local lost = due_by('queued', horizon)
for _, id in ipairs(lost) do enqueue(id) end

-- The token may have gone with a worker; and receivers of older versions leave none.
if redis.call('LLEN', LIST) > 0 then wake() end

-- Index entries of records that have expired.
local trimmed = 0
for _, state in ipairs({ 'done', 'dead' }) do
  local gone = until_(state, NOW - retention * 1000 - 1000)
  if #gone > 0 then
    trimmed = trimmed + redis.call('ZREM', P .. state, unpack(gone))
    redis.pcall('ZREM', P .. 'of:late', unpack(gone))
  end
  for _, id in ipairs(state == 'dead' and gone or {}) do  -- a worker of a release before left it its whole life
    if redis.call('EXISTS', event_key(id)) == 0 then redis.call('DEL', P .. 'said:' .. id) end
  end
end
redis.call('ZREMRANGEBYSCORE', P .. 'broken', '-inf', NOW - BROKEN_LIFE * 1000)

-- Rows of what events are found by, once their records have expired: so many of each kind, and names without rows.
local too_old = NOW - rows_live(retention) * 1000
for _, what in ipairs({ 'type', 'error' }) do
  local left, names = most, redis.pcall('ZRANGE', P .. 'of:' .. what .. 's', 0, -1)
  if names.err then names = {} end
  names[#names + 1] = ''
  for _, name in ipairs(names) do
    local key = P .. 'of:' .. what .. ':' .. name
    local old = left > 0 and redis.pcall('ZRANGE', key, '-inf', too_old, 'BYSCORE', 'LIMIT', 0, left) or {}
    if not old.err and #old > 0 then
      redis.call('ZREM', key, unpack(old))
      left = left - #old
    end
    if name ~= '' and redis.call('EXISTS', key) == 0 then redis.call('ZREM', P .. 'of:' .. what .. 's', name) end
  end
end

-- The classes of the errors in an event's history: of each attempt there is a line, unless it was a mere wait.
local function errors_in(id, attempts)
  local classes = {}
  for number = 1, attempts do
    local line = redis.call('HGET', event_key(id), 'attempt:' .. number)
    local known, entry = pcall(cjson.decode, line or '')
    local errors = known and type(entry) == 'table' and (entry.errors or { entry.error }) or {}
    for _, error in ipairs(errors) do
      if type(error) == 'table' and type(error.type) == 'string' then classes[#classes + 1] = error.type end
    end
  end
  return classes
end

-- Puts events that processes of earlier releases have recorded where they are found: slice after slice of all there
-- are, for a few milliseconds. Should such a process go on meanwhile, the round begins again.
local ROUND, AT_ONCE = { 'open', 'dead', 'done' }, 50
local function index_slice(set, cursor)
  local slice = redis.call('ZSCAN', P .. set, cursor, 'COUNT', AT_ONCE)
  for i = 1, #slice[2], 2 do
    local id, ended = slice[2][i], set == 'open' and NOW or tonumber(slice[2][i + 1])
    local record = fields(id, 'received', 'meta', 'state', 'token')
    local received, attempts = tonumber(record[1]), tonumber(record[4]) or 0
    if received and record[2] then
      index_event(id, received, record[2], rows_live(retention))
      if record[3] ~= 'done' or attempts > 1 then index_errors(id, received, errors_in(id, attempts)) end
      if ended - received > late_after(retention) then keep_findable(id, received, rows_live(retention)) end
    end
  end
  return slice[1]
end

local function go_round()
  local known, wanted = redis.pcall('HMGET', P .. 'of', 'filled', 'round'), gap()
  if known.err then redis.call('DEL', P .. 'of') end
  if known.err or known[1] == wanted then return end
  local began, place, cursor = string.match(known[2] or '', '^(%-?%d+) (%d+) (%d+)$')
  place = began == wanted and tonumber(place) or 1
  if began ~= wanted then cursor = '0' end
  local used_ms, looked = stopwatch(), 0
  repeat
    if not ROUND[place] then
      redis.call('HDEL', P .. 'of', 'round')
      redis.call('HSET', P .. 'of', 'filled', wanted)
      return
    end
    cursor = index_slice(ROUND[place], cursor)
    looked = looked + AT_ONCE
    if cursor == '0' then place = place + 1 end
  until used_ms(looked) >= round_ms
  redis.call('HSET', P .. 'of', 'round', wanted .. ' ' .. place .. ' ' .. cursor)
end
go_round()

return { #due, #expired, #lost, trimmed, mended, broken, misfits }
