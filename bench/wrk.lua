-- Sends the requests of the file REQUESTS (whole, with a NUL between two) in turn, and prints what was measured as JSON.
local requests, next = {}, 0

function init()
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

function done(summary, latency)
  local errors = summary.errors
  print(string.format('{"requests":%d,"seconds":%.4f,"p50":%.4f,"p99":%.4f,"errors":%d}',
    summary.requests, summary.duration / 1e6, latency:percentile(50) / 1e3, latency:percentile(99) / 1e3,
    errors.connect + errors.read + errors.write + errors.status + errors.timeout))
end
