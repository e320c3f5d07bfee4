-- The records from the last snapshot to the head: {head with snapshot, records}.
-- KEYS[1] is the thread.
local head = redis.call('HGET', KEYS[1], 'h')
if not head then return false end
local version, snapshot = string.match(head, '^(%d+)%-%x+:(%d+)$')
if not version then return { head, {} } end
local records, names = {}, {}
for v = tonumber(snapshot), tonumber(version) do
  names[#names + 1] = string.format('%d', v)
  if #names == 500 or v == tonumber(version) then
    for _, record in ipairs(redis.call('HMGET', KEYS[1], unpack(names))) do
      records[#records + 1] = record
    end
    names = {}
  end
end
return { head, records }
