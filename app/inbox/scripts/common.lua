-- What all scripts share: the keys, and the moves of an event between its states.
--
--   jobhook:event:<id>   hash    one event: body, said, meta, state, token, attempt, attempt:<n>, step:<name>, …
--                                once it has failed: tries:<handler> (what each has used up, when it is due),
--                                since (start of its first attempt), crashes (processes it has taken along),
--                                held (when a handler of it was last found paused; 0: it is not),
--                                handling (attempt and handler it is in), replay:<ms> (state it was put back from)
--                                emptied (when what it says was taken out), discarded (when it was closed for that)
--   jobhook:said:<id>    string  digest of what the event says; outlives the event so that redeliveries are known
--   jobhook:seen:<id>    string  digest of the body: the marker of releases that went by the bytes. Of them there
--                                may be old events and, during an upgrade, receivers (see accept.lua)
--   jobhook:open         zset    unfinished events by time received
--   jobhook:queued       zset    by time queued        (the RQ list has the order; this finds what it lost)
--   jobhook:running      zset    by end of the lease
--   jobhook:retrying     zset    by time due
--   jobhook:done         zset    by time ended
--   jobhook:dead         zset    by time ended
--   jobhook:broken       zset    events whose record cannot be read, by time set aside
--   jobhook:handled:<res> zset   per handler: when the newest event of a resource that it has handled occurred
--   jobhook:handlers     string  the names of the handlers that the workers started last know, as JSON
--   jobhook:turn:<res>   string  the event whose turn it is, where a resource's events run one at a time
--   jobhook:line:<res>   zset    the events that wait for their turn, by time received
--   jobhook:job          hash    an RQ job as it is in line: all are the same but for their key
--   jobhook:counts       hash    counters since ever
--   jobhook:swept        string  time of the last sweep
--   jobhook:supervisors  zset    supervisors by time of their last beat; gone when none beats any more
--   jobhook:keys         hash    what is remembered of JobsiteOn's keys, by fingerprint (keys.lua)
--   jobhook:paused       hash    what is paused: until when (0: until it is ended), since when, by whom
--   jobhook:alerts       hash    what is told of alerts: whose turn it is to look, what is known, what is to be sent
--   jobhook:probe:…              keys of a delivery on trial (probe.lua); deleted at once
--   jobhook:cursor       string  where in `open` the next sweep goes on looking
--   jobhook:wake         list    at most one token: whoever waits for events pops it, and looks
--   jobhook:of:<what>:<name> zset what events are found by: their type, resource, classes of error; by time received
--   jobhook:of:<what>s   zset    the names there are of types and of errors, by time of the last
--   jobhook:of:late      zset    events that may outlive their rows in these, by time received
--   jobhook:of           hash    whether all events are in them (see `gap`)
--
-- All times are the server's, in milliseconds, so the clocks of receivers and workers do not matter.

local P, RQ, QUEUE = '$PREFIX', '$RQ_PREFIX', '$QUEUE'
local LIST = RQ .. ':queue:' .. QUEUE

local time = redis.call('TIME')
local NOW = time[1] * 1000 + math.floor(time[2] / 1000)

local function event_key(id) return P .. 'event:' .. id end

-- A script is not undone when a command in its middle fails: what a person has put in the place of a key, or of a
-- field, must not cut it in two. So scripts that change an index begin with `refusal`, and what belongs to one
-- event is read with `fields` and checked before anything is written.

-- The keys that scripts share, and their types.
local SHARED = {
  open = 'zset', queued = 'zset', running = 'zset', retrying = 'zset', done = 'zset', dead = 'zset', broken = 'zset',
  job = 'hash', counts = 'hash', keys = 'hash', paused = 'hash', alerts = 'hash',
  swept = 'string', cursor = 'string', wake = 'list', LIST = 'list',
}

local function shared_key(name) return name == 'LIST' and LIST or P .. name end

-- The type of a shared key, if it is there and of another type than it has to be.
local function misfit(name)
  local type = redis.call('TYPE', shared_key(name)).ok
  return type ~= 'none' and type ~= SHARED[name] and type
end

-- The error with which a script ends before it has written anything, if one of the keys it needs cannot be used.
local function refusal(...)
  for _, name in ipairs({ ... }) do
    local type = misfit(name)
    if type then
      return redis.error_reply('WRONGTYPE ' .. shared_key(name) .. ' is a ' .. type .. ', not a ' .. SHARED[name])
    end
  end
end

-- Fields of an event's record, in this order; none, if what is there is not a hash.
local function fields(id, ...)
  local found = redis.pcall('HMGET', event_key(id), ...)
  if not found.err then return found end
  if string.sub(found.err, 1, 9) == 'WRONGTYPE' then return {} end
  return redis.call('HMGET', event_key(id), ...)  -- it is not for the record that it cannot be read: fails again
end

-- Removes a key of one event or resource if it has another type than it has to have: it is of no use.
local function clear_misfit(key, needed)
  local type = redis.call('TYPE', key).ok
  if type ~= 'none' and type ~= needed then redis.call('DEL', key) end
end

-- Gives a function that tells how many milliseconds a script has used since. It is told how many events have been
-- looked at meanwhile: Redis 7.0 shows scripts no clock (TIME stands still in them), and so many take a millisecond.
local EVENTS_PER_MS = 50
local has_clock, clock = pcall(function() return os.clock end)
local function stopwatch()
  local begun = has_clock and clock()
  return function(looked) return begun and (clock() - begun) * 1000 or looked / EVENTS_PER_MS end
end

-- A counter that cannot be counted up is no reason to fail.
local function count(what, by) redis.pcall('HINCRBY', P .. 'counts', what, by or 1) end

-- Beside their states, events are found by what they are of: a sorted set for each type, resource and class of error
-- (app/inbox/search.py). They only help to find: one that cannot be used is no reason to refuse anything, and what
-- it held is put together again by the sweep.

-- Types, and classes of errors, that have a set of their own. What goes beyond that shares the one without a name.
local MOST_NAMES, LONGEST_NAME = 200, 200

-- Rows are kept for as long as a record is kept that was closed within this part of the retention.
local LATE = 0.25
local function late_after(retention) return LATE * retention * 1000 end
local function rows_live(retention) return math.ceil((1 + LATE) * retention) end

local function add_row(key, score, member)
  local added = redis.pcall('ZADD', key, score, member)
  if type(added) ~= 'table' then return added end
  redis.call('DEL', key, P .. 'of')  -- of another type, put there by hand
  return redis.call('ZADD', key, score, member)
end

local registered = {}
-- The set of a type or a class of error.
local function rows_of(what, name)
  local key = P .. 'of:' .. what .. ':' .. (#name > LONGEST_NAME and '' or name)
  if #name <= LONGEST_NAME and not registered[key] then
    registered[key] = key
    local names = P .. 'of:' .. what .. 's'
    if add_row(names, NOW, name) == 1 and #redis.call('ZRANGE', names, MOST_NAMES, MOST_NAMES) > 0 then
      redis.call('ZREM', names, name)
      registered[key] = P .. 'of:' .. what .. ':'
    end
  end
  return registered[key] or key
end

-- An event that has been open for long, or is put back to work, may be there when its rows have gone.
local function keep_findable(id, received, seconds)
  add_row(P .. 'of:late', received, id)
  redis.call('EXPIRE', P .. 'of:late', seconds)
end

-- Type and resource in the meta, decoded only if it is not as receivers write it. (Without a type it is no record.)
local function of_meta(meta)
  local name, resource = string.match(meta, '^{"type":"([^"\\]+)","event_id":"?[^"\\]*"?,"resource":"([^"\\]+)"')
  if name then return name, resource end
  local known, decoded = pcall(cjson.decode, meta)
  if not known or type(decoded) ~= 'table' then return nil end
  name, resource = decoded.type, decoded.resource
  return type(name) == 'string' and name or nil, type(resource) == 'string' and resource or nil
end

local type_rows, subjects = {}, {}
-- Makes an event one that is found by its type and resource; for so many seconds at least.
local function index_event(id, received, meta, seconds)
  local name, resource = of_meta(meta)
  if not name then return end
  if not type_rows[name] then
    type_rows[name] = rows_of('type', name)
    subjects[name] = P .. 'of:resource:' .. string.lower(string.match(name, '^[^._:/ ]*')) .. '/'
  end
  add_row(type_rows[name], received, id)
  if not resource then return end
  local key = subjects[name] .. resource
  add_row(key, received, id)
  redis.call('EXPIRE', key, seconds)
  if string.sub(id, -1) == '0' then  -- one in sixteen looks for rows that are too old
    local old = redis.call('ZRANGE', key, '-inf', NOW - seconds * 1000, 'BYSCORE', 'LIMIT', 0, 100)
    if #old > 0 then redis.call('ZREM', key, unpack(old)) end
  end
end

-- … and by the errors of an attempt.
local function index_errors(id, received, classes)
  for _, class in ipairs(classes) do add_row(rows_of('error', class), received, id) end
end

-- What has been counted, but not as being in these sets: what processes of earlier releases have done. As long as that
-- is the number that the field `filled` has, all events can be found by them. Otherwise the sweep goes through all.
local function gap()
  local uncounted = -(tonumber(redis.pcall('HGET', P .. 'of', 'indexed')) or 0)
  local counted = redis.pcall('HMGET', P .. 'counts', 'deliveries:accepted', 'deliveries:conflict',
    'attempts:retry', 'attempts:dead', 'attempts:crashed')
  for _, number in ipairs(counted.err and {} or counted) do uncounted = uncounted + (tonumber(number) or 0) end
  return string.format('%d', uncounted)
end

-- Counts what has been put in. Returns how much that was so far, since ever.
local function count_indexed(number)
  local indexed = redis.pcall('HINCRBY', P .. 'of', 'indexed', number)
  if type(indexed) ~= 'table' then return indexed end
  redis.call('DEL', P .. 'of')
  return redis.call('HINCRBY', P .. 'of', 'indexed', number)
end

-- What a script that enqueues begins with: the job of app/inbox/jobs.py, as JSON, for `enqueue` to copy.
local function set_job(fields)
  redis.call('DEL', P .. 'job')
  redis.call('HSET', P .. 'job', unpack(cjson.decode(fields)))
  redis.pcall('SADD', RQ .. ':queues', LIST)  -- for RQ's own tools
end

-- Wakes one worker, if any waits. A token that is still there has been taken by nobody, so that nobody waits.
-- One token is enough: whoever takes an event and leaves others in line wakes the next (work.lua). Should a worker
-- die with the token, the next sweep wakes another one.
local awake = false
local function wake()
  if not awake and redis.call('LLEN', P .. 'wake') == 0 then redis.call('LPUSH', P .. 'wake', 1) end
  awake = true
end

-- Puts an event in line; with `received`, at its head. There it counts as queued before all others, because
-- the sweep takes for lost what was queued before the head.
local function enqueue(id, received)
  local since = NOW
  if received then
    local head = redis.call('LINDEX', LIST, 0)
    received = tonumber(received) or NOW
    since = math.min(received, head and redis.call('ZSCORE', P .. 'queued', head) or received)
  end
  redis.call('COPY', P .. 'job', RQ .. ':job:' .. id, 'REPLACE')
  redis.call(received and 'LPUSH' or 'RPUSH', LIST, id)
  redis.call('ZADD', P .. 'queued', since, id)
  wake()
end

local function requeue(id, from, received)
  redis.call('ZREM', P .. from, id)
  redis.call('HSET', event_key(id), 'state', 'queued')
  enqueue(id, received)
end

local function expire_markers(id, seconds)
  redis.call('EXPIRE', P .. 'said:' .. id, seconds)
  redis.call('EXPIRE', P .. 'seen:' .. id, seconds)
end

-- A final event (or one that waits for its retry) back to work, with all its time and attempts before it.
local function revive(id, state, window)
  local key = event_key(id)
  for _, field in ipairs(redis.call('HKEYS', key)) do
    if string.sub(field, 1, 6) == 'tries:' or (state == 'done' and string.sub(field, 1, 5) == 'step:') then
      redis.call('HDEL', key, field)
    end
  end
  redis.call('HDEL', key, 'since', 'crashes', 'held')
  redis.call('HSET', key, 'attempt', 0)
  redis.call('PERSIST', key)
  expire_markers(id, window)
  local received = tonumber(fields(id, 'received')[1]) or NOW
  redis.call('ZADD', P .. 'open', received, id)
  keep_findable(id, received, window)
  requeue(id, state)
end

-- A final state. The record stays for the retention. A dead event's marker goes with it, so that a
-- redelivery after that is a new event and not swallowed.
local function close(id, state, retention, received)
  redis.call('HSET', event_key(id), 'state', state)
  redis.call('ZREM', P .. 'open', id)
  redis.call('ZADD', P .. state, NOW, id)
  redis.call('EXPIRE', event_key(id), retention)
  if NOW - received > late_after(retention) then keep_findable(id, received, rows_live(retention)) end
  if state == 'dead' then expire_markers(id, retention) end
end

local function retry(id, delay)
  redis.call('HSET', event_key(id), 'state', 'retrying')
  redis.call('ZADD', P .. 'retrying', NOW + delay, id)
end

-- Seconds for which what is left of an unreadable record is kept.
local BROKEN_LIFE = 7 * 86400

-- Takes an event whose record cannot be read, or is gone, out of all that is worked on. What is left of it is kept
-- for a while; if the event is delivered again meanwhile, it is recorded anew (accept.lua).
local broken = {}
local function set_aside(id)
  broken[#broken + 1] = id
  for _, index in ipairs({ 'open', 'queued', 'running', 'retrying' }) do redis.call('ZREM', P .. index, id) end
  redis.call('ZADD', P .. 'broken', NOW, id)
  redis.call('EXPIRE', event_key(id), BROKEN_LIFE)
  for _, marker in ipairs({ 'said:', 'seen:' }) do redis.call('EXPIRE', P .. marker .. id, BROKEN_LIFE, 'LT') end
  count('events:broken')
end

-- Seconds after which a turn that nobody has passed on is forgotten; a handler runs for a day at most.
local TURN_LIFE = 7 * 86400

-- At the end of an attempt: gives the turn it has for `resource`, if any, to the event that has waited longest.
-- That one has been at the head of the line before, and need not go through all of it again.
local function pass_turn(id, resource)
  if not resource then return end
  redis.call('HDEL', event_key(id), 'turn')
  local turn, line = P .. 'turn:' .. resource, P .. 'line:' .. resource
  if redis.pcall('GET', turn) ~= id then return end
  redis.call('DEL', turn)
  clear_misfit(line, 'zset')
  local waiting = redis.call('ZPOPMIN', line)[1]
  while waiting do
    local record = fields(waiting, 'state', 'received')
    local state = record[1]
    if state == 'retrying' then requeue(waiting, 'retrying', record[2]) end
    if state == 'retrying' or state == 'queued' then
      redis.call('SET', turn, waiting, 'EX', TURN_LIFE)
      redis.call('HSET', event_key(waiting), 'turn', resource)
      return
    end
    waiting = redis.call('ZPOPMIN', line)[1]
  end
end

-- Starts an attempt: a lease with a new fencing token. Returns the record, or nil if it is not queued.
local function lease(id, worker, length)
  local key = event_key(id)
  local record = fields(id, 'state', 'token', 'attempt')
  if record[1] ~= 'queued' then return nil end
  redis.call('ZREM', P .. 'queued', id)
  redis.call('ZADD', P .. 'running', NOW + length, id)
  redis.call('HSET', key, 'state', 'running', 'worker', worker, 'started', NOW,
    'token', (tonumber(record[2]) or 0) + 1, 'attempt', (tonumber(record[3]) or 0) + 1)
  return redis.call('HGETALL', key)
end

-- The end of an attempt whose process is gone. Which handler was running is not known, so crashes are counted
-- for the event, apart from what its handlers have tried; as many are allowed as a handler has attempts.
-- After the first crash the event runs again at once; then a second later each time, so that an event which
-- kills its worker does not keep doing so without pause.
local function crash(id, message, max_attempts, retention)
  local key = event_key(id)
  local record = fields(id, 'token', 'attempt', 'started', 'worker', 'turn', 'received')
  if not record[1] or not tonumber(record[2]) then return set_aside(id) end
  local received = tonumber(record[6]) or NOW
  redis.call('ZREM', P .. 'running', id)
  redis.call('HSET', key, 'attempt:' .. record[1], cjson.encode({
    attempt = tonumber(record[2]), started = tonumber(record[3]), ended = NOW, worker = record[4],
    outcome = 'crashed', error = { type = 'WorkerDied', message = message } }))
  count('attempts:crashed')
  index_errors(id, received, { 'WorkerDied' })
  count_indexed(1)
  pass_turn(id, record[5])
  local crashes = redis.call('HINCRBY', key, 'crashes', 1)
  if crashes >= max_attempts then
    close(id, 'dead', retention, received)
    count('events:dead')
  else
    retry(id, (crashes - 1) * 1000)
  end
end
