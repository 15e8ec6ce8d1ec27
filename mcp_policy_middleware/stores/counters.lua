-- Takes the charges of one call instead of those that it holds, all or none, in one step (PL-5).
--
-- KEYS  1 the marker of the store; 2 the record of the reservation to be made; 3 the record of the one that is held
--       (where one of the two is missing, the other again); 4... the counters, each once.
-- ARGV  1 `look` or `take`; 2 the time in microseconds since the Unix epoch, empty for the server's own;
--       3 the generation of what is held; 4 how many charges are held; then for each of those
--         the number of its counter, the end of its window (0: as the record says), its amount;
--       then for each charge of the call
--         the number of its counter, its amount, its limit, the length and the offset of its window in seconds (a
--         length of 0: months), 1 where the window slides.
-- Gives 1, the generation, and for each charge the end of its window and the total before it;
--    or 0, the index of the charge that does not fit, the counter's start, end, used and before, and the time.
--
-- Everything is worked out before anything is written: an error halfway would not be undone. Amounts are whole
-- millionths, at most 9,007,199,254,000,000 < 2^53, so that doubles hold them exactly. A counter is the text
-- "starts ends used before limit until"; times are in seconds since the Unix epoch.

local MICRO = 1000000
local GRACE = 60000    -- ms that a closed window is kept, in case the server's clock goes back
local REMEMBER = 60000 -- ms that a reservation's record is kept, in case its request is sent again
local floor, fmod = math.floor, math.fmod

-- The first of the month of a moment, or some months later. Counts in years that begin in March, so that
-- the leap day is a year's last: the civil calendar algorithms of Howard Hinnant.
local function first_of_month(second, later)
  local day = floor(second / 86400) + 719468
  local era = floor(day / 146097)
  day = day - era * 146097
  local year = floor((day - floor(day / 1460) + floor(day / 36524) - floor(day / 146096)) / 365)
  day = day - (365 * year + floor(year / 4) - floor(year / 100))
  local months = (era * 400 + year) * 12 + floor((5 * day + 2) / 153) + later
  year = floor(months / 12)
  era = floor(year / 400)
  year = year - era * 400
  day = 365 * year + floor(year / 4) - floor(year / 100) + floor((153 * (months % 12) + 2) / 5)
  return (era * 146097 + day - 719468) * 86400
end

local function window_end(charge, second)
  if charge.seconds == 0 then return first_of_month(second, 1) end
  return (floor((second - charge.offset) / charge.seconds) + 1) * charge.seconds + charge.offset
end

local function window_start(charge, ends)
  if charge.seconds == 0 then return first_of_month(ends - 1, 0) end
  return ends - charge.seconds
end

-- amount * part / whole, rounded up, exact though the product is beyond 2^53; part <= whole < 2^42.
local function share(amount, part, whole)
  local rest = fmod(amount, whole)
  local shares = (amount - rest) / whole * part
  local quotient, remainder = 0, 0
  for bit = 41, 0, -1 do
    quotient, remainder = quotient * 2, remainder * 2
    if floor(part / 2 ^ bit) % 2 == 1 then remainder = remainder + rest end
    while remainder >= whole do
      quotient, remainder = quotient + 1, remainder - whole
    end
  end
  if remainder > 0 then quotient = quotient + 1 end
  return shares + quotient
end

local found = redis.call('MGET', unpack(KEYS))
if not found[1] then return redis.error_reply('NOMARKER the store holds no marker') end
local generation, latest = string.match(found[1], '^(%S+) (%d+)$')
latest = tonumber(latest)
local now = tonumber(ARGV[2])
if not now then
  local time = redis.call('TIME')
  now = time[1] * MICRO + time[2]
end
local taking = ARGV[1] == 'take'
local at = 5 + 3 * tonumber(ARGV[4])

-- the same request once more: the same answer, and nothing more is taken
if taking and at <= #ARGV and found[2] then
  local reply = {1, string.match(found[2], '^%S+')}
  for number in string.gmatch(found[2], ' (%S+)') do reply[#reply + 1] = tonumber(number) end
  return reply
end

local cells = {}
for key = 4, #KEYS do
  if found[key] then
    local starts, ends, used, before, limit, till =
      string.match(found[key], '^(%S+) (%S+) (%S+) (%S+) (%S+) (%S+)$')
    cells[key] = {starts = tonumber(starts), ends = tonumber(ends), used = tonumber(used),
      before = tonumber(before), limit = tonumber(limit), till = tonumber(till)}
  end
end

-- the counters of the call, each in the window of now; a window that was closed stays closed
local charges = {}
for i = at, #ARGV, 6 do
  local charge = {key = tonumber(ARGV[i]), amount = tonumber(ARGV[i + 1]), limit = tonumber(ARGV[i + 2]),
    seconds = tonumber(ARGV[i + 3]), offset = tonumber(ARGV[i + 4]), sliding = ARGV[i + 5] == '1'}
  charges[#charges + 1] = charge
  local cell = cells[charge.key]
  if not cell or cell.ends * MICRO <= now then
    local ends = window_end(charge, floor((cell and now or math.max(now, latest)) / MICRO))
    local starts = window_start(charge, ends)
    cells[charge.key] = {starts = starts, ends = ends, used = 0, limit = 0,
      before = cell and cell.ends == starts and cell.used or 0,
      till = charge.sliding and window_end(charge, ends) or ends}
  end
end

-- what is held goes back to the windows that were charged, once, unless the store was emptied meanwhile
local touched = {}
local void = found[3] == 'released' or ARGV[3] ~= '' and ARGV[3] ~= generation
if not void then
  local windows = string.gmatch(found[3] or '', ' (%S+) %S+')
  for i = 5, at - 1, 3 do
    local key, ends, amount = tonumber(ARGV[i]), tonumber(ARGV[i + 1]), tonumber(ARGV[i + 2])
    local cell = cells[key]
    if ends == 0 then ends = tonumber(windows() or 0) end
    local field = cell and (ends == cell.ends and 'used' or ends == cell.starts and 'before')
    if field then
      cell[field] = math.max(0, cell[field] - amount)
      touched[key] = cell
    end
  end
end

local reply = {1, generation}
local after = {}
for index, charge in ipairs(charges) do
  local cell = cells[charge.key]
  local used = cell.used
  if charge.sliding and cell.before > 0 then
    local length = (cell.ends - cell.starts) * MICRO
    used = used + share(cell.before, math.min(length, cell.ends * MICRO - now), length)
  end
  if used > charge.limit - charge.amount then
    return {0, index - 1, cell.starts, cell.ends, cell.used, cell.before, now}
  end
  after[charge.key] = math.max(after[charge.key] or 0, cell.used + charge.amount)
  reply[#reply + 1] = cell.ends
  reply[#reply + 1] = used
end
if not taking then return reply end

for _, charge in ipairs(charges) do
  local cell = cells[charge.key]
  cell.used, cell.limit = after[charge.key], charge.limit
  touched[charge.key] = cell
end
for key, cell in pairs(touched) do
  local text = string.format('%.0f %.0f %.0f %.0f %.0f %.0f',
    cell.starts, cell.ends, cell.used, cell.before, cell.limit, cell.till)
  redis.call('SET', KEYS[key], text, 'PX', math.max(1, floor(cell.till * 1000 - now / 1000) + GRACE))
end
if #charges > 0 then
  local record = {generation}
  for i = 3, #reply do record[#record + 1] = string.format('%.0f', reply[i]) end
  redis.call('SET', KEYS[2], table.concat(record, ' '), 'PX', REMEMBER)
end
if at > 5 then redis.call('SET', KEYS[3], 'released', 'PX', REMEMBER) end
if now > latest + MICRO then redis.call('SET', KEYS[1], string.format('%s %.0f', generation, now)) end
return reply
