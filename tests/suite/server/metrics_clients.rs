//! Simple HTTP clients of the metrics page, and clients of other protocols that connect to it.
//! Each must be able to read its answer and then the end: a reset could destroy the answer.

use kv::{MemTable, Metrics, ServerConfig, Service, listen, serve_http};
use socket2::SockRef;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};
use tokio::task::JoinHandle;
use tokio::time::timeout;

use crate::support::server::PATIENCE;

struct Http {
    address: String,
    task: JoinHandle<()>,
}

impl Http {
    async fn start() -> Self {
        let listener = listen("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let service = Service::builder(MemTable::new()).metrics(Metrics::new());
        let never = std::future::pending();
        let served = serve_http(listener, service.build(), ServerConfig::default(), never);
        Self {
            address,
            task: tokio::spawn(served),
        }
    }

    async fn connect(&self) -> TcpStream {
        TcpStream::connect(&self.address).await.unwrap()
    }

    /// Sends the whole request before it reads, as the simplest programs do, and reads to the end.
    async fn ask(&self, request: impl AsRef<[u8]>) -> String {
        let mut stream = self.connect().await;
        let sent = stream.write_all(request.as_ref()).await;
        sent.expect("the connection was reset");
        read(&mut stream).await
    }
}

impl Drop for Http {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn read(stream: &mut TcpStream) -> String {
    let mut answer = Vec::new();
    let read = timeout(PATIENCE, stream.read_to_end(&mut answer)).await;
    read.expect("the connection has not ended in time")
        .expect("the connection was reset");
    String::from_utf8(answer).unwrap()
}

fn status(answer: &str) -> &str {
    answer.split(' ').nth(1).unwrap_or(answer)
}

fn is_whole_page(answer: &str) -> bool {
    let (head, page) = answer.split_once("\r\n\r\n").unwrap();
    let length = head.lines().find_map(|line| {
        line.to_lowercase()
            .strip_prefix("content-length: ")
            .map(str::to_owned)
    });
    status(answer) == "200"
        && page.ends_with("# EOF\n")
        && length.is_none_or(|length| length.parse() == Ok(page.len()))
}

#[tokio::test]
async fn answers_a_client_that_closes_its_sending_side() {
    let http = Http::start().await;
    for _ in 0..200 {
        let mut stream = http.connect().await;
        stream
            .write_all(b"GET /metrics HTTP/1.1\r\nHost: kvs\r\n\r\n")
            .await
            .unwrap();
        stream.shutdown().await.unwrap();
        let answer = read(&mut stream).await;
        assert!(is_whole_page(&answer), "{answer}");
    }
    // Without a request, or with part of one, the answer is empty or an error.
    for request in [&b""[..], b"GET /met"] {
        let mut stream = http.connect().await;
        stream.write_all(request).await.unwrap();
        stream.shutdown().await.unwrap();
        let answer = read(&mut stream).await;
        assert!(answer.is_empty() || status(&answer) == "400", "{answer}");
    }
}

#[tokio::test]
async fn answers_the_simplest_requests() {
    let http = Http::start().await;
    for request in [
        "GET /metrics HTTP/1.0\r\n\r\n",
        "GET /metrics HTTP/1.1\r\n\r\n",
        "GET /metrics HTTP/1.1\nHost: kvs\n\n",
        "GET /metrics?name=kvs HTTP/1.1\r\nHost: kvs\r\n\r\n",
        "GET http://kvs/metrics HTTP/1.1\r\nHost: kvs\r\n\r\n",
        "\r\nGET /metrics HTTP/1.1\r\nHost: kvs\r\nConnection: keep-alive\r\n\r\n",
    ] {
        let answer = http.ask(request).await;
        assert!(is_whole_page(&answer), "{request:?} {answer}");
    }
    let answer = http.ask("HEAD /metrics HTTP/1.0\r\n\r\n").await;
    let (head, page) = answer.split_once("\r\n\r\n").unwrap();
    assert!(status(head) == "200" && page.is_empty(), "{answer}");
}

#[tokio::test]
async fn answers_the_first_of_two_requests_and_says_so() {
    let http = Http::start().await;
    let request = "GET /metrics HTTP/1.1\r\nHost: kvs\r\n\r\n";
    for _ in 0..50 {
        let answer = http.ask(request.repeat(200)).await;
        assert!(is_whole_page(&answer), "{answer}");
        assert_eq!(answer.matches("HTTP/1.1 200").count(), 1);
        assert!(
            answer.to_lowercase().contains("\r\nconnection: close\r\n"),
            "{answer}"
        );
    }
}

#[tokio::test]
async fn answers_a_request_with_a_body_before_closing() {
    let http = Http::start().await;
    // More than the sockets hold.
    let body = "x".repeat(16 * 1024 * 1024);
    let length = body.len();
    for (method, expected) in [
        ("GET", "200"),
        ("POST", "405"),
        ("PUT", "405"),
        ("get", "405"),
    ] {
        let request =
            format!("{method} /metrics HTTP/1.1\r\nHost: kvs\r\nContent-Length: {length}\r\n\r\n");
        let answer = http.ask(request + &body).await;
        assert_eq!(status(&answer), expected, "{method} {answer}");
    }
}

#[tokio::test]
async fn answers_an_invalid_request_with_an_error() {
    let http = Http::start().await;
    let long = format!("GET /{} HTTP/1.1\r\n\r\n", "x".repeat(128 * 1024));
    for (request, expected) in [
        (&b"nonsense\r\n\r\n"[..], "400"),
        (b"GET /metrics\r\n\r\n", "400"),
        (
            b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03 hello of TLS \x00\r\n",
            "400",
        ),
        (b"*1\r\n$4\r\nPING\r\n", "400"),
        (long.as_bytes(), "431"),
    ] {
        let answer = http.ask(request).await;
        assert_eq!(status(&answer), expected, "{}", request.escape_ascii());
    }
    // These clients would understand no answer.
    let answer = http.ask(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n").await;
    assert!(answer.is_empty() || status(&answer) == "400", "{answer}");
}

#[tokio::test]
async fn a_slow_reader_gets_its_whole_page() {
    let http = Http::start().await;
    let socket = TcpSocket::new_v4().unwrap();
    socket.set_recv_buffer_size(1024).unwrap();
    let mut stream = socket.connect(http.address.parse().unwrap()).await.unwrap();
    SockRef::from(&stream).set_tcp_nodelay(true).unwrap();
    stream
        .write_all(b"GET /metrics HTTP/1.0\r\n\r\n")
        .await
        .unwrap();
    let mut answer = String::new();
    let mut part = [0; 7];
    let slowly = async {
        loop {
            let len = stream
                .read(&mut part)
                .await
                .expect("the connection was reset");
            if len == 0 {
                return;
            }
            answer.push_str(std::str::from_utf8(&part[..len]).unwrap());
            tokio::task::yield_now().await;
        }
    };
    timeout(PATIENCE, slowly)
        .await
        .expect("the connection has not ended in time");
    assert!(is_whole_page(&answer), "{answer}");
}
