// One question to the relay for everything under a broadcast, however many parts of the page ask.
//
// Draft 16 refuses a second SUBSCRIBE_NAMESPACE whose prefix overlaps with the first (PREFIX_OVERLAP), and the picture
// asks for <broadcast> while the chat asks for <broadcast>/chat. So the page asks once and shares the answers out.

import { Announce, Path } from "@moq/net";

/**
 * The session, but for its discovery below `root`, which all callers share.
 *
 * @param {Established} session
 * @param {string} root - the namespace prefix that is asked for
 * @returns {Established}
 */
export function shareDiscovery(session, root) {
  const active = new Set(); // full paths
  const listeners = new Set(); // Announce.Producer
  let ended = false;

  const tell = (listener, path, isActive) => {
    const suffix = Path.stripPrefix(listener.prefix, path);
    if (suffix !== null) listener.append({ path: suffix, active: isActive });
  };

  void (async () => {
    const upstream = session.announced(root);
    try {
      for (let entry = await upstream.next(); entry; entry = await upstream.next()) {
        const path = Path.join(root, entry.path);
        if (entry.active) active.add(path);
        else active.delete(path);
        for (const listener of listeners) tell(listener, path, entry.active);
      }
    } catch (error) {
      console.warn("discovery failed", error);
    } finally {
      ended = true;
      for (const listener of listeners) listener.close();
    }
  })();

  const shared = Object.create(session, {
    announced: {
      value: (prefix = Path.empty()) => {
        if (!Path.hasPrefix(root, prefix)) return session.announced(prefix);
        const listener = new Announce.Producer(prefix);
        const reader = listener.consume();
        if (ended) {
          listener.close();
          return reader;
        }
        for (const path of active) tell(listener, path, true);
        listeners.add(listener);
        reader.closed.then(() => listeners.delete(listener));
        return reader;
      },
    },
    announcedBroadcast: { value: (path) => new Announce.Broadcast({ connection: shared, path }) },
    // Private fields do not pass through a prototype.
    publish: { value: (path, broadcast) => session.publish(path, broadcast) },
    consume: { value: (path) => session.consume(path) },
    stats: { value: () => session.stats() },
    close: { value: () => session.close() },
    closed: { get: () => session.closed },
  });
  return shared;
}
