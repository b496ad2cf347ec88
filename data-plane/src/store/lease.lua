-- Lends a worker a slice of every counter of a hot key, so that its next requests need not come here. A slice is
-- a share of what is left, so slices shrink as a limit comes near, and there every request asks by itself again.
-- Also takes back what is left of the worker's last slice and refreshes the sessions it served meanwhile.
--
-- KEYS  1 .. n       one per counter, in the order of the specs
--       then 2 each  per money entity: leases, amounts (see reserve.lua)
--       then 1 each  per session: its binding
-- ARGV  1  id of the slice (16 bytes)
--       2  now in ms, see count.lua
--       3  id of the holder (16 bytes), under which it keeps one reservation
--       4  nano-USD that its requests in flight may cost     5  ms that the reservation holds
--       6  wanted requests       7  wanted nano-USD          8  ms that the slice holds
--       9  a slice is at most the n-th part of what is left
--       10 the last slice's id   11, 12  first and last number of its unused requests; 12 = 0: none
--       13 ms until a session expires      14 ms that a binding holds
--       15 least requests, 16 least nano-USD that such a part has to be; less is not lent
--       17 specs, see reserve.lua        18 s
--       then 2 each per session: member, bound provider or ''
-- Answer {requests, nano-USD}, both 0 when there is too little to lend.
--
-- The requests of a slice count from the end of the slice on, the last moment at which one can begin: so no
-- window of 60 s ever holds more than the limit.

local slice, holder, keep, lease = ARGV[1], ARGV[3], tonumber(ARGV[4]), tonumber(ARGV[5])
local requests, nano, length, share = tonumber(ARGV[6]), tonumber(ARGV[7]), tonumber(ARGV[8]), tonumber(ARGV[9])
local least, least_nano = tonumber(ARGV[15]), tonumber(ARGV[16])
local last, sessions = tonumber(ARGV[12]), tonumber(ARGV[18])
local specs = parse_all(17)
local n = #specs
local entities = (#KEYS - n - sessions) / 2

local function entity_keys(entity) return KEYS[1 + n + 2 * entity], KEYS[2 + n + 2 * entity] end

for i = 1, n do
  local spec, key = specs[i], KEYS[i]
  if spec.kind == 'r' then
    for number = tonumber(ARGV[11]), last do redis.call('ZREM', key, ARGV[10] .. number) end
  elseif spec.kind == 's' then
    for session = 1, sessions do
      redis.call('ZADD', key, now + tonumber(ARGV[13]), ARGV[17 + 2 * session])
    end
    if sessions > 0 then expire(key, spec.ttl) end
  end
end
for session = 1, sessions do
  local provider = ARGV[18 + 2 * session]
  if provider ~= '' then
    redis.call('SET', KEYS[n + 2 * entities + session], provider, 'PX', ARGV[14])
  end
end

for i = 1, n do
  local spec = specs[i]
  if spec.kind == 'r' then
    local count = read.r(KEYS[i], spec)
    local part = math.floor((spec.limit - count) / share)
    requests = part < least and 0 or math.min(requests, part)
  elseif spec.money then
    local spent = read[spec.kind](KEYS[i], spec)
    local leases, amounts = entity_keys(spec.entity)
    local own = number(redis.call('HGET', amounts, holder))
    local left = spent and spec.limit - spent - (reserved(leases, amounts) - own) - keep or 0
    local part = math.floor(left / share)
    nano = part < least_nano and 0 or math.min(nano, part)
  end
end
if requests < 1 or (entities > 0 and nano < 1) then requests, nano = 0, 0 end

for i = 1, n do
  if specs[i].kind == 'r' and requests > 0 then
    for number = 1, requests do redis.call('ZADD', KEYS[i], now + length, slice .. number) end
    expire(KEYS[i], specs[i].ttl)
  end
end
for entity = 0, entities - 1 do
  local leases, amounts = entity_keys(entity)
  local own = redis.call('HGET', amounts, holder)
  if own then subtract(amounts, 'sum', own) end
  local total = string.format('%.0f', keep + nano)
  if total == '0' then
    redis.call('HDEL', amounts, holder)
    redis.call('ZREM', leases, holder)
  else
    redis.call('HSET', amounts, holder, total)
    redis.call('HINCRBY', amounts, 'sum', total)
    redis.call('ZADD', leases, now + lease, holder)
    redis.call('PEXPIRE', leases, lease + 60000)
    redis.call('PEXPIRE', amounts, lease + 60000)
  end
end
return {requests, nano}
