-- Sends the requests of the file REQUESTS (whole, with a NUL between two) in turn, each connection PAUSE milliseconds
-- after its last answer, and prints what was measured as JSON.
local requests, next, pause = {}, 0, tonumber(os.getenv("PAUSE"))
local thread

function setup(only)
  thread = only
end

function init()
  failed = 0
  local file = assert(io.open(os.getenv("REQUESTS"), "rb"))
  for request in (file:read("*a") .. "\0"):gmatch("(.-)%z") do
    requests[#requests + 1] = request
  end
  file:close()
end

function request()
  next = next % #requests + 1
  return requests[next]
end

-- Both cost wrk time at each answer, so they are only there where there is some.
if pause > 0 then
  function delay()
    return pause
  end

  function response(status)
    if status >= 500 then
      failed = failed + 1
    end
  end
end

function done(summary, latency)
  local errors, failed = summary.errors, thread:get("failed")
  print(string.format('{"requests":%d,"seconds":%.4f,"p50":%.4f,"p99":%.4f,"refused":%d,"failed":%d}',
    summary.requests, summary.duration / 1e6, latency:percentile(50) / 1e3, latency:percentile(99) / 1e3,
    errors.status - failed, failed + errors.connect + errors.read + errors.write + errors.timeout))
end
