-- Opens and moves approval requests, in one step each (PL-7).
--
-- KEYS  1 the requests by id; 2 the id of the latest request of each binding; 3 when each id is to be swept;
--       4 what a grant has asked (only to open).
-- ARGV  1 an object of
--         now      the time in seconds since the Unix epoch, below 0 for the server's own,
--         kept     seconds that a closed request is kept,
--         moves    the table of states: where each event leads from each state,
--         pending  the state that a request begins in,
--         token    names this request to the script: the same once more has the same answer; and
--         to move: id, event, and said, which is who answers and why;
--         to open: made, the request; spare, an id for it where its own is taken; seconds until its time is up;
--                  ended, the states in which a request does not stand; most, how many are too many: pending, an_hour.
-- Gives the time; 1 where the request was made or moved, -1 where the grant has asked too much, else 0; and the
-- request, or all that count. A request is an object of texts, so that JSON changes no number.

local HOUR = 3600
local AT_ONCE = 256 -- requests that one step sweeps at most
local given = cjson.decode(ARGV[1])
local expire = given.moves.expire
local now = given.now
if now < 0 then
  local time = redis.call('TIME')
  now = time[1] + time[2] / 1000000
end

local function exact(number) return string.format('%.17g', number) end

local function read(id)
  local text = redis.call('HGET', KEYS[1], id)
  return text and cjson.decode(text)
end

local function write(one)
  if not expire[one.state] then one.arguments = nil end -- it is closed
  redis.call('HSET', KEYS[1], one.id, cjson.encode(one))
end

local function lapse(one)
  if now >= tonumber(one.expires_at) then one.state = expire[one.state] or one.state end
  return one
end

local function answer(changed, one)
  return {exact(now), changed and 1 or 0, one and cjson.encode(one) or false}
end

local function live_for(key, seconds)
  local milliseconds = math.ceil(seconds * 1000)
  if redis.call('PTTL', key) < milliseconds then redis.call('PEXPIRE', key, milliseconds) end
end

-- once where its time is up, and once where it was kept long enough; what does not read is not kept
for _, id in ipairs(redis.call('ZRANGEBYSCORE', KEYS[3], '-inf', exact(now), 'LIMIT', 0, AT_ONCE)) do
  local reads, one = pcall(read, id)
  local forgotten = reads and one and tonumber(one.expires_at) + given.kept
  if forgotten and now < forgotten then
    write(lapse(one))
    redis.call('ZADD', KEYS[3], exact(forgotten), id)
  else
    redis.call('HDEL', KEYS[1], id)
    redis.call('ZREM', KEYS[3], id)
    if forgotten and redis.call('HGET', KEYS[2], one.binding) == id then redis.call('HDEL', KEYS[2], one.binding) end
  end
end

if given.event then
  local one = read(given.id)
  if not one then return answer(false) end
  local state = given.moves[given.event][lapse(one).state]
  if not state then return answer(one.token == given.token, one) end
  if one.state == given.pending then one.said, one.answered_at = given.said, exact(now) end
  one.state, one.token = state, given.token
  write(one)
  return answer(true, one)
end

local made = given.made
local latest = redis.call('HGET', KEYS[2], made.binding)
local standing = latest and read(latest)
if standing and now < tonumber(standing.expires_at) and not given.ended[standing.state] then
  return answer(standing.token == given.token, standing)
end

local asked, pending, recent = {}, 0, 0
for _, id in ipairs(redis.call('SMEMBERS', KEYS[4])) do
  local one = read(id)
  local is_pending = one and lapse(one).state == given.pending
  local is_recent = one and tonumber(one.asked_at) + HOUR > now
  if is_pending then pending = pending + 1 end
  if is_recent then recent = recent + 1 end
  if is_pending or is_recent then
    one.arguments = nil
    asked[#asked + 1] = cjson.encode(one)
  else
    redis.call('SREM', KEYS[4], id)
  end
end
if pending >= given.most.pending or recent >= given.most.an_hour then return {exact(now), -1, asked} end

if redis.call('HEXISTS', KEYS[1], made.id) == 1 then made.id = given.spare end
made.token, made.asked_at, made.expires_at = given.token, exact(now), exact(now + given.seconds)
write(made)
redis.call('HSET', KEYS[2], made.binding, made.id)
redis.call('ZADD', KEYS[3], made.expires_at, made.id)
redis.call('SADD', KEYS[4], made.id)
for key = 1, 3 do live_for(KEYS[key], given.seconds + given.kept) end
live_for(KEYS[4], math.max(given.seconds, HOUR))
return answer(true, made)
