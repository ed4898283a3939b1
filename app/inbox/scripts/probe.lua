-- A delivery on trial: what the accept script does, on keys of its own, which are gone before anybody sees them.
--
-- ARGV  as accept.lua's; a delivery with the id 'dead' finds a dead event
-- Returns what accept.lua would. An error names the command that it came from.

local server, touched, at = redis, {}, ''
local function noted(ask)
  return function(command, ...)
    local key, destination = ...
    at = command
    if key then touched[key] = true end
    if command == 'COPY' then touched[destination] = true end
    return ask(command, ...)
  end
end
local redis = {
  call = noted(server.call), pcall = noted(server.pcall), sha1hex = server.sha1hex, error_reply = server.error_reply,
}

$COMMON

local function accept()
  redis.call('DEL', P .. 'job')  -- before anything is written: who may not delete it may not leave it either
  redis.call('HSET', event_key('dead'), 'state', 'dead', 'received', NOW, 'body', '')
$ACCEPT
end

-- What all events share is looked at where it really is: with another type, it would stop every delivery.
for _, name in ipairs({ 'open', 'queued', 'broken', 'wake', 'LIST' }) do
  local key = name == 'LIST' and '$REAL_RQ_PREFIX:queue:' .. QUEUE or '$REAL_PREFIX' .. name
  local type = server.pcall('TYPE', key).ok or 'none'  -- who may not ask is not told
  if type ~= 'none' and type ~= SHARED[name] then
    return server.error_reply('WRONGTYPE ' .. key .. ' is a ' .. type .. ', not a ' .. SHARED[name])
  end
end

local is_well, result = pcall(accept)
local keys = {}
for key in pairs(touched) do keys[#keys + 1] = key end
pcall(server.call, 'DEL', unpack(keys))
if is_well then return result end
local said = type(result) == 'table' and result.err or tostring(result)
return server.error_reply(said .. " (at the '" .. at .. "' command)")
