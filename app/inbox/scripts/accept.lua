#!lua
-- Records deliveries: each becomes a new event, a redelivery of a known one, or a conflict with it.
--
-- ARGV  RQ job, dedupe window (s), retention (s), same id: 'compare' | 'duplicate',
--       then per delivery: id, digest, former id | '', digest of the bytes, meta, body
-- Returns, per delivery, a status and the event's id:
--   accepted   a new event, queued
--   duplicate  it says the same as one before; nothing to do
--   revived    the same, and the event was dead: it is back in the queue
--   conflict   the same id, and it says something else: a new event, flagged
--
-- Releases before went by the bytes: an event without an event id was named by its body (the former id), and a
-- marker `seen:<id>` held the digest of the bytes. Their markers and events are still found here. While their
-- receivers run beside this one, they find the events of this one by the same bytes: under the same id by the
-- body in the record, under another id by a marker of theirs, which is left here for them.

local refused = refusal('open', 'queued', 'dead', 'broken', 'job', 'wake', 'LIST')
if refused then return refused end

local window, retention, trusts_ids = ARGV[2], tonumber(ARGV[3]), ARGV[4] == 'duplicate'
local rows_seconds = rows_live(retention)
set_job(ARGV[1])

-- Bytes of a body that says the same as the event's but is not the same; a longer one is not kept.
local MOST_REWRITTEN = 16384

-- Writes a key of one event. What is there of another type, put there by hand, is of no use and goes.
local function write(command, key, ...)
  local reply = redis.pcall(command, key, ...)
  if type(reply) ~= 'table' or not reply.err then return reply end
  redis.call('DEL', key)
  return redis.call(command, key, ...)
end

local function create(id, digest, meta, body, conflict_of)
  write('HSET', event_key(id), 'state', 'queued', 'received', NOW, 'said', digest, 'meta', meta, 'body', body)
  if conflict_of then redis.call('HSET', event_key(id), 'conflict_of', conflict_of) end
  redis.call('ZADD', P .. 'open', NOW, id)
  index_event(id, NOW, meta, rows_seconds)
  enqueue(id)
end

local function note_rewritten(key, body)
  redis.pcall('HINCRBY', key, 'rewritten', 1)
  redis.call('HSET', key, 'rewritten_size', #body)
  if #body <= MOST_REWRITTEN then
    redis.call('HSET', key, 'rewritten_body', body)
  else
    redis.call('HDEL', key, 'rewritten_body')
  end
end

local function redeliver(id, digest, meta, body, conflict_of)
  local key = event_key(id)
  if redis.call('ZREM', P .. 'broken', id) == 1 then
    redis.call('DEL', key)
    create(id, digest, meta, body, conflict_of)
    expire_markers(id, window)
    return 'revived'
  end
  local record = fields(id, 'state', 'body', 'emptied')
  if not record[1] then return 'duplicate' end  -- finished, and past its retention
  redis.pcall('HINCRBY', key, 'redelivered', 1)
  redis.call('HSET', key, 'redelivered_last', NOW)
  if record[2] ~= body and not record[3] then note_rewritten(key, body) end
  if record[1] ~= 'dead' then return 'duplicate' end
  revive(id, record[1], window)
  return 'revived'
end

-- Marks an id with the digest of what is said under it. Returns how that compares with what was known of the
-- id: 'new', 'same' or 'other'.
local function mark(id, digest, bytes, body)
  local known = write('SET', P .. 'said:' .. id, digest, 'NX', 'GET', 'EX', window)
  if known then return known == digest and 'same' or 'other' end
  -- Here for the first time, unless it was a release before, or the event is open for longer than the window.
  local seen, record = redis.pcall('GET', P .. 'seen:' .. id), fields(id, 'said', 'body')
  if type(seen) == 'table' then  -- of another type, put there by hand: of no use
    redis.call('DEL', P .. 'seen:' .. id)
    seen = false
  end
  if not seen and not record[2] then return 'new' end
  if seen == bytes or seen == digest or record[1] == digest or record[2] == body then return 'same' end
  redis.call('DEL', P .. 'said:' .. id)  -- what is known says something else
  return 'other'
end

-- Whether the very same bytes are known under an id that they had in a release before, or with other settings.
-- If not, they are from now on, to the receivers of that release.
local function known_by_bytes(id, bytes, body)
  local seen = write('SET', P .. 'seen:' .. id, bytes, 'NX', 'GET', 'EX', retention)
  return seen == bytes or fields(id, 'body')[1] == body
end

-- The id of what is said under an id that is taken: as long as any, and the same each time.
local function conflict_id(id, digest) return string.sub(redis.sha1hex(id .. digest), 1, #id) end

local function admit(id, digest, former, bytes, meta, body)
  local conflict_of
  local verdict = mark(id, digest, bytes, body)
  if verdict == 'other' and not trusts_ids then
    conflict_of = id
    id, former = conflict_id(conflict_of, digest), conflict_id(conflict_of, bytes)
    verdict = mark(id, digest, bytes, body)
  end
  if verdict ~= 'new' then return redeliver(id, digest, meta, body, conflict_of), id end
  if former ~= '' and former ~= id and known_by_bytes(former, bytes, body) then
    redis.call('DEL', P .. 'said:' .. id)
    return redeliver(former, digest, meta, body), former
  end
  create(id, digest, meta, body, conflict_of)
  return conflict_of and 'conflict' or 'accepted', id
end

local replies, totals = {}, {}
for i = 5, #ARGV, 6 do
  local status, id = admit(unpack(ARGV, i, i + 5))
  replies[#replies + 1] = status
  replies[#replies + 1] = id
  totals[status] = (totals[status] or 0) + 1
end
for status, total in pairs(totals) do count('deliveries:' .. status, total) end

local created = (totals.accepted or 0) + (totals.conflict or 0)
if created > 0 and count_indexed(created) == created then  -- for the first time: are there any others?
  local others = redis.call('EXISTS', P .. 'done', P .. 'dead') + #redis.call('ZRANGE', P .. 'open', created, created)
  if others == 0 then redis.call('HSET', P .. 'of', 'filled', gap()) end
end
return replies
