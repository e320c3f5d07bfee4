-- Records before a version, newest first, until one is missing: {first version, records}.
-- KEYS[1] is the thread. ARGV: the version ('' for all up to the head), the most records.
local head = redis.call('HGET', KEYS[1], 'h')
if not head then return { 0, {} } end
local first = tonumber(string.match(head, '^%d+'))
if not first then return { head, {} } end
if ARGV[1] ~= '' then first = math.min(first, tonumber(ARGV[1]) - 1) end
local records, last = {}, math.max(1, first - tonumber(ARGV[2]) + 1)
for v = first, last, -1 do
  local record = redis.call('HGET', KEYS[1], string.format('%d', v))
  if not record then break end
  records[#records + 1] = record
end
return { first, records }
