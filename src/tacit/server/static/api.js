// The server's API. A failure says in one sentence what is wrong, and what to do where that is known.

export class Failure extends Error {}

export async function call(method, path, body, signal) {
  let response;
  try {
    response = await fetch(path, {
      method, signal, headers: body === undefined ? {} : { "Content-Type": "application/json" },
      body: body === undefined ? undefined : JSON.stringify(body),
    });
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new Failure("The server cannot be reached; is it still running?");
  }
  const answer = await response.json().catch(() => null);
  if (response.ok) return answer;
  if (response.status === 401) throw new Failure("The API key is missing or was revoked; load the page again to give one.");
  if (response.status === 403 && answer?.error?.code === "forbidden" && path.startsWith("/tacit/"))
    throw new Failure("This API key lacks the right “admin”, which this page needs; use a key made with --rights admin,ask.");
  const told = answer?.error?.message || `the server answered ${response.status}`;
  throw new Failure(`${told[0].toUpperCase()}${told.slice(1)}${/[.!?]$/.test(told) ? "" : "."}`);
}

export const get = (path, signal) => call("GET", path, undefined, signal);
