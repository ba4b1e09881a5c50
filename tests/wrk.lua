-- What wrk sends, and what it tells in one line of JSON.
-- Arguments: the file of the body; "count" to count statuses one by one (else wrk's own count of errors has to do);
-- the mean pause before each request in milliseconds, exponentially distributed, 0 for none; then headers in pairs.

local threads = {}

function setup(thread)
  threads[#threads + 1] = thread
end

function init(args)
  local file = assert(io.open(args[1], "rb"))
  wrk.method = "POST"
  wrk.body = file:read("*a")
  file:close()
  for index = 4, #args, 2 do
    wrk.headers[args[index]] = args[index + 1]
  end
  if args[2] == "count" then
    ok, refused, failed, other = 0, 0, 0, 0
    response = function(status)
      if status == 200 then
        ok = ok + 1
      elseif status == 429 then
        refused = refused + 1
      elseif status >= 500 then
        failed = failed + 1
      else
        other = other + 1
      end
    end
  end
  local pause = tonumber(args[3])
  if pause > 0 then
    math.randomseed(7)
    delay = function()
      return -pause * math.log(1 - math.random())
    end
  end
end

function done(summary, latency, requests)
  local errors = summary.errors
  local counted = {ok = summary.requests - errors.status, refused = 0, failed = 0, other = errors.status}
  if threads[1]:get("ok") then
    for name in pairs(counted) do
      counted[name] = 0
      for _, thread in ipairs(threads) do
        counted[name] = counted[name] + thread:get(name)
      end
    end
  end
  local bins = {}
  for index = 1, #latency do
    local value, count = latency(index)
    bins[index] = string.format("[%d,%d]", value, count)
  end
  print(string.format(
    '\n{"microseconds":%d,"ok":%d,"refused":%d,"failed":%d,"other":%d,"broken":%d,"latencies":[%s]}',
    summary.duration, counted.ok, counted.refused, counted.failed, counted.other,
    errors.connect + errors.read + errors.write + errors.timeout, table.concat(bins, ",")
  ))
end
