#!/usr/bin/env python3
"""A small Hugging Face hub on this machine, for tests and for trying `lapidary pull` by hand.

  tools/loopback_hub.py FOLDER [--port 8090] [--token TOKEN] [--bytes-per-second N]
  HF_ENDPOINT=http://127.0.0.1:8090 lapidary pull org/name

FOLDER/ORG/NAME/... is the branch main of the model ORG/NAME; FOLDER/ORG/NAME@REVISION/... is another branch or tag. A
commit is named by a hash over its files. Files of 1 KiB and more are "large": they have a SHA-256 as their name, and
the request for one is redirected to a second port, as the hub sends people to its content delivery network. With a
token, models whose name ends in "-gated" want it. Every request is kept in `Hub.log`.
"""
import argparse
import hashlib
import json
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import unquote, urlsplit

LARGE = 1024


class File:
    def __init__(self, path):
        self.bytes = path.read_bytes()
        self.large = len(self.bytes) >= LARGE
        self.blob_id = hashlib.sha1(b"blob %d\0" % len(self.bytes) + self.bytes).hexdigest()
        self.sha256 = hashlib.sha256(self.bytes).hexdigest()
        self.etag = self.sha256 if self.large else self.blob_id


class Revision:
    def __init__(self, folder):
        self.files = {p.relative_to(folder).as_posix(): File(p) for p in sorted(folder.rglob("*")) if p.is_file()}
        listing = "".join(f"{name} {file.etag}\n" for name, file in self.files.items())
        self.commit = hashlib.sha1(listing.encode()).hexdigest()

    def siblings(self):
        for name, file in self.files.items():
            entry = {"rfilename": name, "size": len(file.bytes), "blobId": file.blob_id}
            if file.large:
                entry["lfs"] = {"sha256": file.sha256, "size": len(file.bytes), "pointerSize": 134}
            yield entry

    def tree(self):
        for name, file in self.files.items():
            entry = {"type": "file", "oid": file.blob_id, "size": len(file.bytes), "path": name}
            if file.large:
                entry["lfs"] = {"oid": file.sha256, "size": len(file.bytes), "pointerSize": 134}
            yield entry


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *args):
        pass

    def do_HEAD(self):
        self.answer()

    def do_GET(self):
        self.answer()

    def answer(self):
        hub = self.server.hub
        path = unquote(urlsplit(self.path).path).strip("/")
        content = self.server is not hub.front
        hub.note(self.command, path, self.headers.get("Range"), "authorization" in self.headers, content)
        parts = path.split("/")
        if content:
            self.send_content(hub.blobs.get(parts[-1]))
        elif parts[:2] == ["api", "models"]:
            self.send_listing(parts[2:])
        elif len(parts) >= 5 and parts[2] == "resolve":
            self.send_file("/".join(parts[:2]), parts[3], "/".join(parts[4:]))
        else:
            self.refuse(404, "", "not found")

    def refuse(self, status, code, message):
        self.send_response(status)
        if code:
            self.send_header("X-Error-Code", code)
        self.send_header("X-Error-Message", message)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def revision(self, repo, revision):
        """The revision, or None after an answer that says why not."""
        hub = self.server.hub
        if repo not in hub.models:
            self.refuse(401, "RepoNotFound", "Repository not found")
            return None
        if repo.endswith("-gated") and hub.token and self.headers.get("Authorization") != f"Bearer {hub.token}":
            self.refuse(401, "GatedRepo", "Access to model is restricted")
            return None
        revisions = hub.models[repo]
        found = revisions.get(revision) or next((r for r in revisions.values() if r.commit == revision), None)
        if not found:
            self.refuse(404, "RevisionNotFound", "Invalid rev id")
        return found

    def send_json(self, document):
        body = json.dumps(document).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def send_listing(self, parts):
        repo, kind = "/".join(parts[:2]), parts[2] if len(parts) > 2 else "revision"
        found = self.revision(repo, "/".join(parts[3:]) or "main")
        if not found:
            return
        if kind == "tree":
            self.send_json(list(found.tree()))
        else:
            self.send_json({"id": repo, "modelId": repo, "sha": found.commit, "private": False,
                            "siblings": list(found.siblings())})

    def send_file(self, repo, revision, name):
        found = self.revision(repo, revision)
        if not found:
            return
        file = found.files.get(name)
        if not file:
            self.refuse(404, "EntryNotFound", "Entry not found")
            return
        head = {"X-Repo-Commit": found.commit}
        if file.large:
            head |= {"X-Linked-Etag": f'"{file.etag}"', "X-Linked-Size": str(len(file.bytes)),
                     "Location": f"{self.server.hub.content_url}/{file.etag}", "Content-Length": "0"}
            self.send_response(302)
            for header in head.items():
                self.send_header(*header)
            self.end_headers()
        else:
            self.send_content(file, head | {"ETag": f'"{file.etag}"'})

    def send_content(self, file, head=None):
        if not file:
            self.refuse(404, "", "no such content")
            return
        begin, end = 0, len(file.bytes)
        wanted = self.headers.get("Range", "")
        if wanted.startswith("bytes="):
            first, last = wanted[6:].split("-")
            begin, end = int(first), min(int(last) + 1 if last else end, end)
        self.send_response(206 if wanted else 200)
        if wanted:
            self.send_header("Content-Range", f"bytes {begin}-{end - 1}/{len(file.bytes)}")
        for header in (head or {}).items():
            self.send_header(*header)
        self.send_header("Content-Length", str(end - begin))
        self.end_headers()
        if self.command == "GET":
            self.send_slowly(file.bytes[begin:end])

    def send_slowly(self, body):
        speed = self.server.hub.bytes_per_second
        piece = max(1, speed // 20) if speed else len(body) or 1
        try:
            for at in range(0, len(body), piece):
                self.wfile.write(body[at:at + piece])
                if speed:
                    time.sleep(piece / speed)
        except OSError:
            self.close_connection = True  # whoever asked is gone


class Hub:
    """The hub and its content delivery network, on a port each, while the `with` lasts."""

    def __init__(self, folder, port=0, token="", bytes_per_second=0):
        self.token, self.bytes_per_second = token, bytes_per_second
        self.log, self.lock = [], threading.Lock()
        self.models = {}
        for model in sorted(Path(folder).glob("*/*")):
            name, _, revision = model.relative_to(folder).as_posix().partition("@")
            self.models.setdefault(name, {})[revision or "main"] = Revision(model)
        self.blobs = {file.etag: file for revisions in self.models.values() for revision in revisions.values()
                      for file in revision.files.values()}
        self.front = ThreadingHTTPServer(("127.0.0.1", port), Handler)
        self.content = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        for server in self.servers():
            server.hub, server.daemon_threads = self, True
        self.url = f"http://127.0.0.1:{self.front.server_port}"
        self.content_url = f"http://127.0.0.1:{self.content.server_port}"

    def servers(self):
        return self.front, self.content

    def __enter__(self):
        for server in self.servers():
            threading.Thread(target=server.serve_forever, daemon=True).start()
        return self

    def __exit__(self, *_):
        for server in self.servers():
            server.shutdown()
            server.server_close()

    def note(self, method, path, wanted, with_token, content):
        with self.lock:
            self.log.append({"method": method, "path": path, "range": wanted, "token": with_token, "content": content})

    def take_log(self):
        """The requests since the last call."""
        with self.lock:
            taken, self.log = self.log, []
        return taken


def downloads(log):
    """The requests among those of a log that asked for the content of a file."""
    return [r for r in log if r["method"] == "GET" and (r["content"] or "/resolve/" in r["path"])]


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--port", type=int, default=8090)
    parser.add_argument("--token", default="")
    parser.add_argument("--bytes-per-second", type=int, default=0, help="of each connection")
    args = parser.parse_args()
    with Hub(args.folder, args.port, args.token, args.bytes_per_second) as hub:
        print(f"HF_ENDPOINT={hub.url}  serves {', '.join(hub.models) or 'nothing'}", flush=True)
        try:
            while True:
                time.sleep(0.2)
                for request in hub.take_log():
                    print(request["method"], request["path"], request["range"] or "", flush=True)
        except KeyboardInterrupt:
            pass


if __name__ == "__main__":
    main()
