#!lua flags=no-writes
-- Looks through events, the newest first, for those that may fit; for a few milliseconds at most.
--
-- ARGV  one JSON object, then the texts it refers to by their numbers:
--   sources  the sorted sets that are gone through together, by their scores, the highest first
--   before   {score, id} of the one looked at last, to go on from there
--   lowest   scores below are not looked at
--   since, until  time received (ms), from and before; until may be missing
--   states, conflict
--   types    patterns of Lua, of which the type fits one
--   meta     for each text that has to be in the meta: the numbers of its spellings
--   anywhere the same, of all that is kept of the event
--   most, most_looked, ms   when to stop: so many found, looked at, milliseconds used
--   tally    whether to count them by state and type instead
-- Returns {ids, or counts by '<state> <type>' in turn; looked at; score and id of the last; whether that was all}

local given, texts = cjson.decode(ARGV[1]), { unpack(ARGV, 2) }
local CHUNK = math.min(100, math.max(8, math.floor(800 / #given.sources)))  -- rows read at a time
local LOOKS_PER_CLOCK = 16
local used_ms, floor = stopwatch(), given.lowest and string.format('%d', given.lowest) or '-inf'
local before_score, before_id = given.before and given.before[1], given.before and given.before[2]

-- A sorted set as it is gone through: `score` and `id` of the one whose turn it is, nil at its end.
local function advance(source)
  source.at = source.at + 2
  if source.at > #source.entries then
    if source.is_last then
      source.score = nil
      return
    end
    local entries = redis.pcall('ZRANGE', source.key, source.highest, floor, 'BYSCORE', 'REV', 'LIMIT', source.skip,
      CHUNK, 'WITHSCORES')
    source.entries, source.at = entries.err and {} or entries, 1
    source.is_last = #source.entries < 2 * CHUNK
    if #source.entries == 0 then
      source.score = nil
      return
    end
  end
  local score = source.entries[source.at + 1]
  source.skip = score == source.highest and source.skip + 1 or 1
  source.highest, source.score, source.id = score, tonumber(score), source.entries[source.at]
end

local function comes_first(one, other)
  if one.score ~= other.score then return one.score > other.score end
  return one.id > other.id
end

-- The sources as a heap: the first is the one whose turn it is.
local heap = {}
local function sink(at)
  while true do
    local first, left = at, 2 * at
    for child = left, left + 1 do
      if heap[child] and comes_first(heap[child], heap[first]) then first = child end
    end
    if first == at then return end
    heap[at], heap[first] = heap[first], heap[at]
    at = first
  end
end

for _, key in ipairs(given.sources) do
  local highest = before_score and string.format('%.17g', before_score) or '+inf'
  local source = { key = key, highest = highest, skip = 0, entries = {}, at = 1 }
  repeat advance(source)
  until not source.score or not before_score or source.score < before_score or source.id < before_id
  if source.score then heap[#heap + 1] = source end
end
for at = math.floor(#heap / 2), 1, -1 do sink(at) end

local function next_id()
  local source = heap[1]
  if not source then return nil end
  local score, id = source.score, source.id
  advance(source)
  if not source.score then
    heap[1] = heap[#heap]
    heap[#heap] = nil
  end
  if heap[1] then sink(1) end
  return score, id
end

local states = {}
for _, state in ipairs(given.states) do states[state] = true end

local function has_one(texts_of, numbers)
  for _, number in ipairs(numbers) do
    for _, text in ipairs(texts_of) do
      if string.find(text, texts[number], 1, true) then return true end
    end
  end
  return false
end

local function has_all(texts_of, groups)
  for _, numbers in ipairs(groups) do
    if not has_one(texts_of, numbers) then return false end
  end
  return true
end

local function is_of_type(meta)
  if #given.types == 0 then return true end
  local type = string.lower(of_meta(meta) or '')
  for _, pattern in ipairs(given.types) do
    if string.find(type, pattern) then return true end
  end
  return false
end

local NEEDED = { 'state', 'received' }
local needs_meta = given.tally or #given.types > 0 or #given.meta > 0
if needs_meta or given.conflict then NEEDED[3], NEEDED[4] = 'meta', 'conflict_of' end

-- The state and, if it is needed, the meta of an event that may fit.
local function fitting(id)
  local record = fields(id, unpack(NEEDED))
  local received = tonumber(record[2])
  if not states[record[1]] or not received or (needs_meta and not record[3]) then return nil end
  if received < given.since or (given['until'] and received >= given['until']) then return nil end
  if given.conflict and not record[4] then return nil end
  if needs_meta and not (is_of_type(record[3]) and has_all({ record[3] }, given.meta)) then return nil end
  if #given.anywhere > 0 then
    local all = redis.call('HGETALL', event_key(id))
    all[#all + 1] = id
    if not has_all(all, given.anywhere) then return nil end
  end
  return record[1], record[3]
end

local found, tally, looked = {}, {}, 0
local last_score, last_id = before_score, before_id
while true do
  local score, id = next_id()
  if not score then return { found, looked, string.format('%.17g', last_score or 0), last_id or '', 1 } end
  if id ~= last_id then
    looked = looked + 1
    local state, meta = fitting(id)
    if state and given.tally then
      local name = state .. ' ' .. (of_meta(meta) or '')
      if not tally[name] then
        found[#found + 1] = name
        found[#found + 1] = 0
        tally[name] = #found
      end
      found[tally[name]] = found[tally[name]] + 1
    elseif state then
      found[#found + 1] = id
    end
  end
  last_score, last_id = score, id
  local is_time = looked % LOOKS_PER_CLOCK == 0 and used_ms(looked) >= given.ms
  if is_time or looked >= given.most_looked or (not given.tally and #found >= given.most) then
    return { found, looked, string.format('%.17g', last_score), last_id, 0 }
  end
end
