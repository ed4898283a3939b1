#!lua flags=allow-oom
-- Sets events aside whose record could not be read.
-- ARGV  ids.  Returns how many.
local refused = refusal('open', 'queued', 'running', 'retrying', 'broken')
if refused then return refused end
for _, id in ipairs(ARGV) do set_aside(id) end
return #ARGV
