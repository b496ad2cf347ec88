-- Reads counters: the common head of reserve.lua and lease.lua, put before them when they are loaded.
-- ARGV[2] is now in ms; 0: this server's clock, so that proxies with different clocks agree.
--
-- Money counters are hashes: base (ms of the seeding), until (a provisional seed counts until then), spent, and
-- for rolling windows the buckets by number with tail and head; for from-first windows start.
-- Money moves by HINCRBY, exact to 64 bits. Comparisons and answers pass through Lua's doubles, exact to
-- 2^53 nano-USD = 9 million USD; beyond, a comparison may be off by a few nano-dollars.

local now = tonumber(ARGV[2])
if now == 0 then
  local time = redis.call('TIME')
  now = tonumber(time[1]) * 1000 + math.floor(tonumber(time[2]) / 1000)
end

local function number(text) return tonumber(text or 0) or 0 end

-- Exact to 64 bits; '-0' is no integer to Redis.
local function subtract(key, field, amount)
  if amount ~= '0' then redis.call('HINCRBY', key, field, '-' .. amount) end
end

-- The parts of "kind limit a b entity ttl".
local function parse(text)
  local kind, limit, a, b, entity, ttl = string.match(text, '^(%a) (%d+) (%d+) (%d+) (%d+) (%d+)$')
  return {
    kind = kind, limit = tonumber(limit), a = tonumber(a), b = tonumber(b),
    entity = tonumber(entity), ttl = tonumber(ttl), money = kind ~= 'r' and kind ~= 's',
  }
end

-- Groups take their keys from KEYS one after the other.
local used = 0
local function next_key()
  used = used + 1
  return KEYS[used]
end

-- The counters of one caller or provider: `text` has their specs, each closed by ';'. Their keys: of each counter
-- its own, and of requests also the key of what was lent of them; then of each money entity leases and amounts.
local function parse_group(text)
  local group, entities = {owners = {}}, 0
  for words in string.gmatch(text, '[^;]+') do
    local spec = parse(words)
    spec.key = next_key()
    if spec.kind == 'r' then spec.lent = next_key() end
    if spec.money and spec.entity >= entities then entities = spec.entity + 1 end
    group[#group + 1] = spec
  end
  for entity = 1, entities do group.owners[entity] = {leases = next_key(), amounts = next_key()} end
  return group
end

-- A ttl of this size is the instant at which a window's counter is over: late writes keep it for an hour yet.
local function expire(key, ttl)
  if ttl > 1e12 then ttl = math.max(ttl - now, 3600000) end
  redis.call('PEXPIRE', key, string.format('%.0f', ttl))
end

-- Live reservations of a money entity. Leases of dead proxies are given back here, some at a time.
local live = {}
local function reserved(owner)
  local leases, amounts = owner.leases, owner.amounts
  if live[amounts] then return live[amounts] end
  for _, id in ipairs(redis.call('ZRANGEBYSCORE', leases, '-inf', now, 'LIMIT', 0, 500)) do
    local amount = redis.call('HGET', amounts, id)
    if amount then
      redis.call('HDEL', amounts, id)
      subtract(amounts, 'sum', amount)
    end
    redis.call('ZREM', leases, id)
  end
  live[amounts] = number(redis.call('HGET', amounts, 'sum'))
  return live[amounts]
end

-- Removes what has left a rolling window, each bucket once in its life; answers the oldest that is left.
local function roll(key, length, bucket, tail, head)
  local gone = math.floor((now - length) / bucket) - 1
  if not tail or tail > gone then return tail end
  for number = tail, math.min(gone, head) do
    local amount = redis.call('HGET', key, number)
    if amount then
      redis.call('HDEL', key, number)
      subtract(key, 'spent', amount)
    end
  end
  if gone >= head then
    redis.call('HDEL', key, 'tail', 'head')
    return nil
  end
  local oldest = gone + 1
  -- Bounded: a head that a wrong clock wrote may lie far ahead; the next call goes on from here.
  local stop = math.min(head, oldest + 5000)
  while oldest < stop and redis.call('HEXISTS', key, oldest) == 0 do oldest = oldest + 1 end
  redis.call('HSET', key, 'tail', oldest)
  return oldest
end

local function seeded(base, till) return base and (not till or tonumber(till) > now) end

-- Each returns: current, reset ms (0 unknown), wait ms (0 unknown); current nil: not seeded.
local read = {}

function read.f(spec)
  local row = redis.call('HMGET', spec.key, 'base', 'until', 'spent')
  if not seeded(row[1], row[2]) then return nil end
  return number(row[3]), 0, 0
end

function read.o(spec)
  local key = spec.key
  local row = redis.call('HMGET', key, 'base', 'until', 'tail', 'head')
  if not seeded(row[1], row[2]) then return nil end
  local tail = roll(key, spec.a, spec.b, tonumber(row[3] or nil), tonumber(row[4] or nil))
  local wait = tail and (tail + 1) * spec.b + spec.a - now or 0
  return number(redis.call('HGET', key, 'spent')), 0, wait
end

function read.g(spec)
  local row = redis.call('HMGET', spec.key, 'base', 'until', 'spent', 'start')
  if not seeded(row[1], row[2]) then return nil end
  local finish = row[4] and tonumber(row[4]) + spec.a
  if not finish or finish <= now then return 0, 0, 0 end
  return number(row[3]), finish, finish - now
end

-- Requests that were lent to workers are counted by the slice, in buckets by the end of the slice: the last moment
-- at which one of them can begin, so that no window of 60 s ever holds more than the limit.
local LENT_BUCKET = 100

-- How many are lent of a sliding window, and when the oldest of them leave it.
local function lent(key, length)
  local row = redis.call('HMGET', key, 'tail', 'head')
  if not row[1] then return 0 end
  local tail = roll(key, length, LENT_BUCKET, tonumber(row[1]), tonumber(row[2]))
  if not tail then return 0 end
  return number(redis.call('HGET', key, 'spent')), (tail + 1) * LENT_BUCKET + length
end

function read.r(spec)
  local key = spec.key
  local from = spec.a > 0 and now - spec.a or spec.b - 1
  redis.call('ZREMRANGEBYSCORE', key, '-inf', from)
  local single = redis.call('ZCARD', key)
  if spec.a == 0 then return single, 0, 0 end
  local slices, slices_leave = lent(spec.lent, spec.a)
  local count = single + slices
  if count < spec.limit then return count, 0, 0 end
  -- The request whose leaving makes room; where slices are out, whichever leaves first.
  local at = slices == 0 and count - spec.limit or 0
  local row = redis.call('ZRANGE', key, at, at, 'WITHSCORES')
  local reset = row[2] and tonumber(row[2]) + spec.a or slices_leave
  if slices > 0 and slices_leave < reset then reset = slices_leave end
  reset = reset or now
  return count, reset, reset - now
end

