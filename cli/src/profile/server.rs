//! A flame graph of a running process for a browser: an HTTP server with two pages, for this machine.
//!
//! It answers GET only, reads no body, and closes each connection after its answer. A page of
//! another site could get a browser to send requests here, by a name that it resolves to 127.0.0.1
//! (DNS rebinding): so the header Host has to be an address, or `localhost`.

use std::io::{self, Read, Write};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream, ToSocketAddrs};
use std::path::Path;
use std::process::ExitCode;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::thread;
use std::time::{Duration, Instant};

use clap::ValueEnum;
use format::profile::SAMPLE_TYPES;

use super::group::By;
use super::options::check;
use super::process::Processes;
use super::value::Value;
use super::{Shown, View, flame};
use crate::failure::{Failure, USAGE};
use crate::library::reason;
use crate::output;

/// Seconds after which the page is loaded again.
const REFRESH: u32 = 10;
/// The most bytes of a request, and the time that it may take.
const LONGEST: usize = 8 << 10;
const PATIENCE: Duration = Duration::from_secs(5);
/// The most connections at once.
const CONNECTIONS: usize = 16;

/// Serves until the process has ended.
pub fn main(processes: Processes, address: &str, view: View) -> Result<ExitCode, Failure> {
    // A failure, if there is one, before the first request.
    let (profile, _) = processes.profile()?;
    check(&Shown::one(&title(processes), &profile), view.value)?;
    drop(profile);
    let listener = bind(address)?;
    let server = Server {
        processes,
        view,
        hosts: Hosts::of(address, &listener),
        taking: Mutex::new(()),
        connections: AtomicUsize::new(0),
    };
    let local = listener
        .local_addr()
        .map_err(|error| cannot_listen(address, &error))?;
    output::print(&format!("http://{local}/\n"))?;
    thread::scope(|threads| {
        loop {
            let Ok((stream, _)) = listener.accept() else {
                thread::sleep(Duration::from_millis(100)); // no descriptor is free
                continue;
            };
            if server.connections.fetch_add(1, SeqCst) >= CONNECTIONS {
                server.connections.fetch_sub(1, SeqCst);
                continue; // the connection is closed
            }
            threads.spawn(|| {
                let stream = stream;
                server.serve(&stream);
                server.connections.fetch_sub(1, SeqCst);
            });
        }
    })
}

fn title(processes: Processes) -> String {
    let and = if processes.children {
        " and its descendants"
    } else {
        ""
    };
    format!("process {}{and}", processes.pid)
}

fn cannot_listen(address: &str, error: &io::Error) -> Failure {
    let what = format!("cannot listen on {address}: {}", reason(error));
    Failure::new(
        what,
        "name another address or port, as --http 127.0.0.1:8080",
    )
}

/// Listens on an address: `HOST:PORT`, or a port of 127.0.0.1.
fn bind(address: &str) -> Result<TcpListener, Failure> {
    let found: Vec<SocketAddr> = match address.parse::<u16>() {
        Ok(port) => vec![SocketAddr::from(([127, 0, 0, 1], port))],
        Err(_) => address
            .to_socket_addrs()
            .map_err(|error| cannot_listen(address, &error).status(USAGE))?
            .collect(),
    };
    TcpListener::bind(&found[..]).map_err(|error| cannot_listen(address, &error))
}

/// Which hosts a request may be for.
struct Hosts {
    /// Whether only this machine can connect.
    is_local: bool,
    /// The name that was given.
    name: String,
}

impl Hosts {
    fn of(address: &str, listener: &TcpListener) -> Hosts {
        Hosts {
            is_local: listener
                .local_addr()
                .is_ok_and(|local| local.ip().is_loopback()),
            name: name_of(address).to_ascii_lowercase(),
        }
    }

    /// Whether a page of another site cannot have sent a request with this header.
    fn admit(&self, host: &str) -> bool {
        let name = name_of(host.trim()).to_ascii_lowercase();
        match name.parse::<IpAddr>() {
            Ok(address) => !self.is_local || address.is_loopback(),
            Err(_) => name == "localhost" || (!name.is_empty() && name == self.name),
        }
    }
}

/// The host of `HOST:PORT` or `HOST`.
fn name_of(host: &str) -> &str {
    if let Some(inside) = host.strip_prefix('[') {
        return inside.split(']').next().unwrap_or_default();
    }
    host.split(':').next().unwrap_or_default()
}

/// The answer to a request.
struct Answer {
    status: &'static str,
    kind: &'static str,
    body: Vec<u8>,
}

impl Answer {
    fn text(status: &'static str, text: &str) -> Answer {
        Answer {
            status,
            kind: "text/plain; charset=utf-8",
            body: format!("{text}\n").into(),
        }
    }
}

struct Server {
    processes: Processes,
    view: View,
    hosts: Hosts,
    /// Held while a profile is taken: one at a time.
    taking: Mutex<()>,
    connections: AtomicUsize,
}

impl Server {
    fn serve(&self, stream: &TcpStream) {
        let answer = match read_head(stream, PATIENCE) {
            Some(head) => self.answer(&head),
            None => Answer::text("400 Bad Request", "this is no request"),
        };
        let _ = send(stream, &answer);
        let is_gone = !Path::new(&format!("/proc/{}", self.processes.pid)).exists();
        if is_gone {
            let what = format!("process {} has ended", self.processes.pid);
            let failure = Failure::new(what, "start the command for another one");
            let _ = failure.report();
            std::process::exit(1);
        }
    }

    /// The answer to a request's head.
    fn answer(&self, head: &str) -> Answer {
        let mut lines = head.split("\r\n");
        let mut words = lines.next().unwrap_or_default().split(' ');
        let (method, target) = (
            words.next().unwrap_or_default(),
            words.next().unwrap_or_default(),
        );
        if !words
            .next()
            .is_some_and(|version| version.starts_with("HTTP/1."))
        {
            return Answer::text("400 Bad Request", "this is no request");
        }
        if method != "GET" {
            return Answer::text("405 Method Not Allowed", "only GET");
        }
        let headers = lines.filter_map(|line| line.split_once(':'));
        let mut hosts = headers.filter(|(name, _)| name.eq_ignore_ascii_case("host"));
        match (hosts.next(), hosts.next()) {
            (Some((_, host)), None) if self.hosts.admit(host) => {}
            _ => {
                let text = "the header Host has to be the address of this server";
                return Answer::text("421 Misdirected Request", text);
            }
        }
        let (path, query) = target.split_once('?').unwrap_or((target, ""));
        match path {
            "/" => self.page(&Query::of(query, &self.view)),
            "/heap.pb.gz" => self.file(),
            _ => Answer::text("404 Not Found", "there are / and /heap.pb.gz"),
        }
    }

    fn file(&self) -> Answer {
        let taking = self.taking.lock();
        let profile = self.processes.profile();
        drop(taking);
        match profile {
            Ok((_, body)) => Answer {
                status: "200 OK",
                kind: "application/octet-stream",
                body,
            },
            Err(failure) => Answer::text("503 Service Unavailable", &failure.to_string()),
        }
    }

    fn page(&self, query: &Query) -> Answer {
        let taking = self.taking.lock();
        let profile = self.processes.profile();
        drop(taking);
        let title = title(self.processes);
        let page = profile.and_then(|(profile, _)| {
            let shown = Shown::one(&title, &profile);
            check(&shown, query.view.value)?;
            Ok(flame::page_with(
                &shown,
                &query.view,
                &query.links(),
                query.script(),
            ))
        });
        match page {
            Ok(page) => Answer {
                status: "200 OK",
                kind: "text/html; charset=utf-8",
                body: page.into(),
            },
            Err(failure) => Answer::text("503 Service Unavailable", &failure.to_string()),
        }
    }
}

/// The parameters of a page.
struct Query {
    view: View,
    is_still: bool,
}

impl Query {
    fn of(query: &str, usual: &View) -> Query {
        let mut of = Query {
            view: View {
                rows: None,
                ..*usual
            },
            is_still: false,
        };
        for (key, value) in query.split('&').filter_map(|part| part.split_once('=')) {
            match key {
                "value" => of.view.value = Value::named(value).unwrap_or(of.view.value),
                "by" => of.view.by = By::from_str(value, false).unwrap_or(of.view.by),
                "still" => of.is_still = value == "1",
                _ => {}
            }
        }
        of
    }

    /// The address of a page.
    fn link(&self, view: (By, Value), is_still: bool, is_current: bool, text: &str) -> String {
        let (by, value) = (view.0.name(), view.1.name());
        let still = if is_still { "&amp;still=1" } else { "" };
        let current = if is_current {
            " aria-current=\"true\""
        } else {
            ""
        };
        format!("<a href=\"/?by={by}&amp;value={value}{still}\"{current}>{text}</a>\n")
    }

    fn links(&self) -> String {
        let View { by, value, .. } = self.view;
        let mut values = String::new();
        for each in SAMPLE_TYPES
            .iter()
            .filter_map(|&(name, _)| Value::named(name))
        {
            values += &self.link((by, each), self.is_still, each == value, each.name());
        }
        let mut groups = String::new();
        for each in By::value_variants() {
            groups += &self.link((*each, value), self.is_still, *each == by, &each.name());
        }
        let refresh = if self.is_still {
            self.link((by, value), false, false, "refresh")
        } else {
            let text = format!("stop ({REFRESH} s)");
            self.link((by, value), true, false, &text)
        };
        format!(
            "<nav><span>value</span>\n{values}</nav>\n<nav><span>by</span>\n{groups}</nav>\n\
             <nav><span>refresh</span>\n{refresh}<a href=\"/heap.pb.gz\">heap.pb.gz</a></nav>\n"
        )
    }

    /// Loads the page again, while it is visible. Zoom and search are in its address.
    fn script(&self) -> &'static str {
        if self.is_still {
            ""
        } else {
            "<script>setInterval(() => document.hidden || location.reload(), 10000)</script>"
        }
    }
}

/// The head of a request; `None` if it is too long or too late.
fn read_head(mut stream: &TcpStream, patience: Duration) -> Option<String> {
    let (begin, mut head) = (Instant::now(), Vec::new());
    loop {
        let left = patience
            .checked_sub(begin.elapsed())
            .filter(|left| !left.is_zero())?;
        stream.set_read_timeout(Some(left)).ok()?;
        let mut part = [0; 1024];
        match stream.read(&mut part) {
            Ok(0) => return None,
            Ok(len) => head.extend_from_slice(&part[..len]),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(_) => return None,
        }
        if let Some(end) = head.windows(4).position(|four| four == b"\r\n\r\n") {
            return String::from_utf8(head[..end].into()).ok();
        }
        if head.len() > LONGEST {
            return None;
        }
    }
}

fn send(mut stream: &TcpStream, answer: &Answer) -> io::Result<()> {
    stream.set_write_timeout(Some(PATIENCE))?;
    let head = format!(
        "HTTP/1.1 {}\r\nContent-Type: {}\r\nContent-Length: {}\r\nConnection: close\r\n\
         Cache-Control: no-store\r\nAllow: GET\r\nX-Content-Type-Options: nosniff\r\n\
         X-Frame-Options: DENY\r\nReferrer-Policy: no-referrer\r\n\
         Cross-Origin-Resource-Policy: same-origin\r\n\
         Content-Security-Policy: default-src 'none'; style-src 'unsafe-inline'; \
         script-src 'unsafe-inline'; frame-ancestors 'none'; base-uri 'none'\r\n\r\n",
        answer.status,
        answer.kind,
        answer.body.len()
    );
    stream.write_all(head.as_bytes())?;
    stream.write_all(&answer.body)?;
    stream.shutdown(std::net::Shutdown::Write)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn server(address: &str) -> (TcpListener, Server) {
        let listener = bind(address).unwrap();
        let server = Server {
            processes: Processes {
                pid: std::process::id(),
                children: false,
            },
            view: View {
                by: By::Line,
                value: Value::InuseSpace,
                rows: None,
            },
            hosts: Hosts::of(address, &listener),
            taking: Mutex::new(()),
            connections: AtomicUsize::new(0),
        };
        (listener, server)
    }

    fn status(server: &Server, request: &str) -> &'static str {
        server.answer(request).status
    }

    #[test]
    fn hosts_are_addresses_of_this_machine() {
        let (_, server) = server("127.0.0.1:0");
        for host in [
            "127.0.0.1",
            "127.0.0.1:8080",
            "localhost:1",
            "LOCALHOST",
            "[::1]:80",
        ] {
            assert!(server.hosts.admit(host), "{host}");
        }
        for host in [
            "",
            "evil.example",
            "evil.example:80",
            "127.0.0.1.evil.example",
            "10.0.0.1",
            "localhost.evil.example",
            "[::2]",
            "0.0.0.0",
        ] {
            assert!(!server.hosts.admit(host), "{host}");
        }
        let any = Hosts {
            is_local: false,
            name: name_of("build.example:80").into(),
        };
        assert!(any.admit("10.0.0.1:80") && any.admit("Build.example"));
        assert!(!any.admit("evil.example"));
    }

    #[test]
    fn requests_that_are_none_are_refused() {
        let (_, server) = server("0");
        let host = "Host: 127.0.0.1";
        // This process publishes nothing: 503 is the page of a request that was admitted.
        assert_eq!(
            status(&server, &format!("GET / HTTP/1.1\r\n{host}")),
            "503 Service Unavailable"
        );
        assert_eq!(
            status(
                &server,
                &format!("GET /heap.pb.gz HTTP/1.0\r\nx: y\r\n{host}")
            ),
            "503 Service Unavailable"
        );
        assert_eq!(
            status(&server, &format!("GET /../etc/passwd HTTP/1.1\r\n{host}")),
            "404 Not Found"
        );
        assert_eq!(
            status(&server, &format!("POST / HTTP/1.1\r\n{host}")),
            "405 Method Not Allowed"
        );
        assert_eq!(status(&server, "GET / HTTP/1.1"), "421 Misdirected Request");
        assert_eq!(
            status(&server, "GET / HTTP/1.1\r\nHost: evil.example"),
            "421 Misdirected Request"
        );
        assert_eq!(
            status(
                &server,
                &format!("GET / HTTP/1.1\r\n{host}\r\nHost: localhost")
            ),
            "421 Misdirected Request"
        );
        for none in ["", "GET", "GET /", "\0\0\0", "GET / HTTP/2", "\r\n\r\n"] {
            assert_eq!(status(&server, none), "400 Bad Request", "{none:?}");
        }
    }

    #[test]
    fn queries_choose_what_is_shown() {
        let (_, server) = server("0");
        let query = Query::of("value=pinned_space&by=type&still=1&x=1&y", &server.view);
        assert_eq!(
            (query.view.value, query.view.by),
            (Value::PinnedSpace, By::Type)
        );
        assert!(query.is_still && query.script().is_empty());
        let usual = Query::of("value=<script>&by=%00&&&=", &server.view);
        assert_eq!(
            (usual.view.value, usual.view.by),
            (Value::InuseSpace, By::Line)
        );
        assert!(usual.script().contains(&format!("{REFRESH}000)")));
        let links = usual.links();
        assert_eq!(links.matches("aria-current").count(), 2);
        assert!(links.contains("<a href=\"/?by=line&amp;value=alloc_space\">alloc_space</a>"));
    }

    #[test]
    fn connections_end_after_the_answer_or_in_time() {
        let (listener, server) = server("127.0.0.1:0");
        let address = listener.local_addr().unwrap();
        let exchange = |request: &[u8]| {
            let mut client = TcpStream::connect(address).unwrap();
            client.write_all(request).unwrap();
            let (stream, _) = listener.accept().unwrap();
            server.serve(&stream);
            drop(stream);
            let mut answer = String::new();
            let _ = client.read_to_string(&mut answer);
            answer
        };
        let answer = exchange(b"GET /x HTTP/1.1\r\nHost: localhost\r\n\r\n");
        assert!(answer.starts_with("HTTP/1.1 404 Not Found\r\n"), "{answer}");
        assert!(answer.contains("default-src 'none'") && answer.ends_with("/heap.pb.gz\n"));
        let answer = exchange(&[b'x'; LONGEST + 2000]);
        assert!(
            answer.is_empty() || answer.starts_with("HTTP/1.1 400"),
            "{answer}"
        );
        let client = TcpStream::connect(address).unwrap();
        let (stream, _) = listener.accept().unwrap();
        assert_eq!(read_head(&stream, Duration::from_millis(20)), None);
        drop(client);
    }
}
