-- Lends a worker a slice of every counter of a hot key, so that its next requests need not come here. A slice is
-- a share of what is left, so slices shrink as a limit comes near, and there every request asks by itself again.
-- Also takes back what is left of the worker's last slice and refreshes the sessions it served meanwhile.
--
-- KEYS  the keys of the counters (see count.lua), then of each session its binding
-- ARGV  1  id of the holder (16 bytes), under which it keeps one reservation
--       2  now in ms, see count.lua
--       3  nano-USD that its requests in flight may cost     4  ms that the reservation holds
--       5  wanted requests       6  wanted nano-USD          7  ms that the slice holds
--       8  a slice is at most the n-th part of what is left
--       9  the last slice's bucket, as it was answered      10 how many of its requests are left
--       11 ms until a session expires      12 ms that a binding holds
--       13 least requests, 14 least nano-USD that such a part has to be; less is not lent
--       15 specs, see reserve.lua          16 s
--       then 2 each per session: member, bound provider or ''
-- Answer {requests, nano-USD, bucket}, the first two 0 when there is too little to lend.

local holder, keep, lease = ARGV[1], tonumber(ARGV[3]), tonumber(ARGV[4])
local requests, nano, length, share = tonumber(ARGV[5]), tonumber(ARGV[6]), tonumber(ARGV[7]), tonumber(ARGV[8])
local last_bucket, unused, sessions = ARGV[9], ARGV[10], tonumber(ARGV[16])
local least, least_nano = tonumber(ARGV[13]), tonumber(ARGV[14])
local bucket = math.floor((now + length) / LENT_BUCKET)
local specs = parse_group(ARGV[15])
local n = #specs
local entities = #specs.owners

for i = 1, n do
  local spec, key = specs[i], specs[i].key
  if spec.kind == 'r' then
    local at = spec.lent
    -- Never more than is there: a Redis that came back older than it was may know nothing of the slice.
    local back = math.min(tonumber(unused), number(redis.call('HGET', at, last_bucket)))
    if back > 0 then
      subtract(at, last_bucket, string.format('%.0f', back))
      subtract(at, 'spent', string.format('%.0f', back))
    end
  elseif spec.kind == 's' then
    for session = 1, sessions do
      redis.call('ZADD', key, now + tonumber(ARGV[11]), ARGV[15 + 2 * session])
    end
    if sessions > 0 then expire(key, spec.ttl) end
  end
end
for session = 1, sessions do
  local provider = ARGV[16 + 2 * session]
  if provider ~= '' then
    redis.call('SET', KEYS[used + session], provider, 'PX', ARGV[12])
  end
end

for i = 1, n do
  local spec = specs[i]
  if spec.kind == 'r' then
    local count = spec.a > 0 and read.r(spec) or spec.limit
    local part = math.floor((spec.limit - count) / share)
    requests = part < least and 0 or math.min(requests, part)
  elseif spec.money then
    local spent = read[spec.kind](spec)
    local owner = specs.owners[spec.entity + 1]
    local own = number(redis.call('HGET', owner.amounts, holder))
    local left = spent and spec.limit - spent - (reserved(owner) - own) - keep or 0
    local part = math.floor(left / share)
    nano = part < least_nano and 0 or math.min(nano, part)
  end
end
if requests < 1 or (entities > 0 and nano < 1) then requests, nano = 0, 0 end

for i = 1, n do
  if specs[i].kind == 'r' and requests > 0 then
    local at = specs[i].lent
    local row = redis.call('HMGET', at, 'tail', 'head')
    redis.call('HINCRBY', at, bucket, string.format('%.0f', requests))
    redis.call('HINCRBY', at, 'spent', string.format('%.0f', requests))
    if not row[1] or bucket < tonumber(row[1]) then redis.call('HSET', at, 'tail', bucket) end
    if not row[2] or bucket > tonumber(row[2]) then redis.call('HSET', at, 'head', bucket) end
    expire(at, specs[i].ttl)
  end
end
for _, owner in ipairs(specs.owners) do
  local leases, amounts = owner.leases, owner.amounts
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
return {requests, nano, bucket}
