-- Claims a name of a round: set if nobody else's claim on it lives. Without a name it reads all.
-- KEYS[1] is the round's claims. ARGV: the longest lease, name, owner, lease.
-- Answers how long another's claim lives yet, or 0; of a read {name, owner, rest} of the living, flat.
local time = redis.call('TIME')
local now, max = time[1] * 1000 + math.floor(time[2] / 1000), tonumber(ARGV[1])
local function rest(claim)
  local left = tonumber(string.sub(claim, 18)) - now
  -- One that would live longer than any may was made by a clock that is gone.
  return left > 0 and left <= max and left or 0
end
if not ARGV[2] then
  local found, living = redis.call('HGETALL', KEYS[1]), {}
  for i = 1, #found, 2 do
    local left = rest(found[i + 1])
    if left > 0 then
      living[#living + 1] = found[i]
      living[#living + 1] = string.sub(found[i + 1], 1, 16)
      living[#living + 1] = left
    end
  end
  return living
end
local held = redis.call('HGET', KEYS[1], ARGV[2])
if held and string.sub(held, 1, 16) ~= ARGV[3] then
  local left = rest(held)
  if left > 0 then return left end
end
local lease = math.min(tonumber(ARGV[4]), max)
if lease == 0 then
  redis.call('HDEL', KEYS[1], ARGV[2])
else
  redis.call('HSET', KEYS[1], ARGV[2], ARGV[3] .. ':' .. string.format('%.0f', now + lease))
  redis.call('PEXPIRE', KEYS[1], max)
end
return 0
