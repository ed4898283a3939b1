#!lua
-- Puts events back to work on request. A dead one goes on where it stopped; a done one starts anew.
-- ARGV  RQ job, dedupe window (s), then ids.  Returns, per id, the state it was in ('' if there is no record,
-- 'emptied' if nothing is left of it to work on).
local refused = refusal('open', 'queued', 'retrying', 'done', 'dead', 'job', 'wake', 'LIST')
if refused then return refused end

local states = {}
set_job(ARGV[1])
for i = 3, #ARGV do
  local record = fields(ARGV[i], 'state', 'emptied')
  local state = record[2] and 'emptied' or record[1] or ''
  if state == 'dead' or state == 'done' or state == 'retrying' then
    revive(ARGV[i], state, ARGV[2])
    redis.call('HSET', event_key(ARGV[i]), 'replay:' .. NOW, state)  -- a line in the event's life
  end
  states[#states + 1] = state
end
return states
