//! What a hit costs over real sockets: `cargo bench -p towline-tests --bench proxy`.
//!
//! Clients on loopback, so many at once, each with one request a connection, ask for 19 bytes and for 32 KiB: of the proxy on tokio, of the
//! proxy on smol, and of nginx (if it is installed) that sends the same bytes over HTTP. All in one run and in turns, as machines are noisy: compare the
//! columns, not the runs. CPU is what the kernel counts for the server's process, user and system.

use std::{
    env, fs,
    io::{BufRead, BufReader, Write},
    net::{Ipv4Addr, SocketAddr},
    path::Path,
    process::{Child, Command, Stdio},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
};
use towline_core::{
    net::Hosts,
    txn::{allow::Allow, proxy::Config},
};

const FILES: [(&str, usize); 2] = [("19", 19), ("32768", 32_768)];
const CONNECTIONS: [usize; 4] = [1, 64, 256, 512];
const LASTS: Duration = Duration::from_secs(2);
const ROUNDS: usize = 3;

fn main() {
    let arguments: Vec<String> = env::args().collect();
    match arguments.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        [_, "serve", runtime, port] => serve(runtime, port.parse().expect("a port")),
        _ => {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
            runtime.block_on(compare());
        }
    }
}

/// The server's process: the proxy, in front of an origin at this port.
fn serve(runtime: &str, origin_port: u16) {
    let mut config = Config::default();
    config.transaction.origin_port = origin_port;
    config.transaction.allow = Allow::everything();
    let listen = [SocketAddr::from((Ipv4Addr::LOCALHOST, 0))];
    match runtime {
        "tokio" => {
            let names = towline_tokio::proxy::Names::Hosts(Arc::new(Hosts::default()));
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
            runtime.block_on(async {
                let (_control, local, task) =
                    towline_tokio::proxy::serve(config, &listen, names, |_, _| {}).expect("a port");
                println!("{}", local[0]);
                task.await;
            });
        }
        "smol" => {
            let names = towline_smol::proxy::Names::Hosts(Arc::new(Hosts::default()));
            let (_control, local, task) =
                towline_smol::proxy::serve(config, &listen, names, |_, _| {}).expect("a port");
            println!("{}", local[0]);
            smol::block_on(task);
        }
        other => panic!("no such runtime: {other}"),
    }
}

struct Server {
    name: &'static str,
    address: SocketAddr,
    child: Child,
    /// The process that does the work.
    pid: u32,
    /// What asks for a file.
    head: fn(&str) -> String,
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn start(name: &'static str, origin_port: u16) -> Server {
    let mut command = Command::new(env::current_exe().expect("itself"));
    let mut child =
        command.args(["serve", name, &origin_port.to_string()]).stdout(Stdio::piped()).spawn().expect("it starts");
    let mut line = String::new();
    BufReader::new(child.stdout.take().expect("stdout")).read_line(&mut line).expect("a line");
    let (address, pid) = (line.trim().parse().expect("an address"), child.id());
    Server { name, address, child, pid, head: |file| format!("127.0.0.1 {file} \r\n\r\n") }
}

/// nginx with one worker, which closes each connection after its reply.
fn start_nginx(directory: &Path) -> Option<Server> {
    let address =
        std::net::TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr()).expect("a port");
    let root = directory.display();
    let config = format!(
        "daemon off; master_process off; worker_processes 1; pid {root}/pid; error_log {root}/error;
         events {{ worker_connections 4096; }}
         http {{ access_log off; sendfile on; tcp_nopush on; open_file_cache max=100; keepalive_timeout 0; client_body_temp_path {root}/b;
         proxy_temp_path {root}/p; fastcgi_temp_path {root}/f; uwsgi_temp_path {root}/u; scgi_temp_path {root}/s;
         server {{ listen {address} backlog=4096; root {root}; }} }}"
    );
    let file = directory.join("nginx.conf");
    fs::write(&file, config).expect("a file");
    let child = Command::new("nginx").arg("-c").arg(&file).stderr(Stdio::null()).spawn().ok()?;
    let pid = child.id();
    Some(Server { name: "nginx", address, child, pid, head: |file| format!("GET /{file} HTTP/1.0\r\n\r\n") })
}

/// CPU seconds of a process, user and system.
fn cpu(pid: u32) -> f64 {
    // proc(5): fields 14 and 15, counted behind the name in brackets, in ticks of 10 ms.
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).expect("a process");
    let fields = stat.rsplit(')').next().unwrap_or_default().split_whitespace();
    fields.skip(11).take(2).map(|ticks| ticks.parse::<f64>().expect("ticks")).sum::<f64>() / 100.0
}

/// Requests in some time; each must give the whole file.
async fn load(server: &Server, file: &str, length: usize, connections: usize) -> u64 {
    let (address, head) = (server.address, Arc::new((server.head)(file)));
    let (done, until) = (Arc::new(AtomicU64::new(0)), Instant::now() + LASTS);
    let clients: Vec<_> = (0..connections)
        .map(|_| {
            let (head, done) = (head.clone(), done.clone());
            tokio::spawn(async move {
                let mut body = Vec::with_capacity(length + 1024);
                while Instant::now() < until {
                    let mut tcp = TcpStream::connect(address).await.expect("a connection");
                    tcp.write_all(head.as_bytes()).await.expect("a request");
                    body.clear();
                    tcp.read_to_end(&mut body).await.expect("a reply");
                    assert!(body.len() >= length, "{} bytes", body.len());
                    done.fetch_add(1, Ordering::Relaxed);
                }
            })
        })
        .collect();
    for client in clients {
        client.await.expect("no panic");
    }
    done.load(Ordering::Relaxed)
}

async fn compare() {
    let directory = tempfile::tempdir().expect("a directory");
    let origin = TcpListener::bind("127.0.0.1:0").await.expect("an origin");
    let port = origin.local_addr().expect("its address").port();
    tokio::spawn(async move {
        while let Ok((mut tcp, _)) = origin.accept().await {
            let mut head = [0; 100];
            let length = tcp.read(&mut head).await.unwrap_or(0);
            let text = String::from_utf8_lossy(&head[..length]).into_owned();
            let size = text.split(' ').nth(1).and_then(|size| size.parse().ok()).unwrap_or(0);
            let _ = tcp.write_all(&vec![b'x'; size]).await;
        }
    });
    for (file, length) in FILES {
        fs::write(directory.path().join(file), vec![b'x'; length]).expect("a file");
    }
    let mut servers = vec![start("tokio", port), start("smol", port)];
    match start_nginx(directory.path()) {
        Some(nginx) => servers.push(nginx),
        None => eprintln!("nginx is not installed: no column of its own"),
    }
    tokio::time::sleep(Duration::from_secs(1)).await;
    println!("hits a second, and CPU of the server for each; the median of {ROUNDS} turns");
    for (file, length) in FILES {
        for connections in CONNECTIONS {
            let mut turns: Vec<Vec<(f64, f64)>> = vec![Vec::new(); servers.len()];
            for _ in 0..ROUNDS {
                for (server, turns) in servers.iter().zip(&mut turns) {
                    let (before, began) = (cpu(server.pid), Instant::now());
                    let hits = load(server, file, length, connections).await as f64;
                    let seconds = began.elapsed().as_secs_f64();
                    turns.push((hits / seconds, (cpu(server.pid) - before) / hits * 1e6));
                }
            }
            print!("{length:>6} bytes, {connections:>3} connections:");
            for (server, turns) in servers.iter().zip(&mut turns) {
                turns.sort_by(|a, b| a.0.total_cmp(&b.0));
                let (rate, cost) = turns[ROUNDS / 2];
                print!("   {} {rate:>6.0}/s {cost:>5.1} µs", server.name);
            }
            println!();
            let _ = std::io::stdout().flush();
        }
    }
}
