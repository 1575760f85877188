// The reference server of tus, with four folders: one for everybody, one whose process kills itself twice in the middle of
// an upload, one whose uploads expire soon, and one for small files.
//
//     node server.js PORT FOLDER

const fs = require("node:fs");
const http = require("node:http");
const path = require("node:path");
const { Transform, pipeline } = require("node:stream");
const { FileStore } = require("@tus/file-store");
const { Server } = require("@tus/server");

const [port, folder] = process.argv.slice(2);

/** After how many bytes of an upload this process dies. */
const DEATHS = [300 * 2 ** 20, 700 * 2 ** 20];
/** Milliseconds that an upload lasts. */
const EXPIRATION = 1000;
/** Bytes of a small file. */
const SMALL = 1000;

class DyingStore extends FileStore {
  write(readable, id, offset) {
    const deaths = path.join(folder, "deaths");
    let at = offset;
    const watch = new Transform({
      transform(chunk, _, done) {
        at += chunk.length;
        const count = fs.existsSync(deaths) ? fs.statSync(deaths).size : 0;
        if (count < DEATHS.length && at >= DEATHS[count]) {
          fs.appendFileSync(deaths, "x");
          process.kill(process.pid, "SIGKILL");
        }
        done(null, chunk);
      },
    });
    pipeline(readable, watch, () => {});
    return super.write(watch, id, offset);
  }
}

function folderOf(name) {
  return path.join(folder, name);
}

const servers = {
  files: new Server({ path: "/files", datastore: new FileStore({ directory: folderOf("files") }) }),
  dying: new Server({ path: "/dying", datastore: new DyingStore({ directory: folderOf("dying") }) }),
  expiring: new Server({
    path: "/expiring",
    datastore: new FileStore({ directory: folderOf("expiring"), expirationPeriodInMilliseconds: EXPIRATION }),
  }),
  small: new Server({ path: "/small", maxSize: SMALL, datastore: new FileStore({ directory: folderOf("small") }) }),
};

http
  .createServer((request, response) => {
    const server = servers[request.url.split("/")[1]];
    if (server) return server.handle(request, response);
    response.writeHead(404).end();
  })
  .listen(Number(port), "127.0.0.1");
