//! HTTP: from bytes on a socket to requests, by hyper on a thread of its own.

use std::convert::Infallible;
use std::io;
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use http_body_util::{BodyExt, Full, LengthLimitError, Limited};
use hyper::body::{Body, Bytes, Incoming};
use hyper::header::{CONTENT_TYPE, HeaderValue, SERVER};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::UnixStream;
use tokio::task::AbortHandle;
use tokio::time::timeout;

use crate::controller::Answer;
use crate::socket::Socket;
use crate::{ApiError, Controller, Machine};

/// The most bytes of a body, as with Firecracker.
pub const MAX_BODY: usize = 51_200;

/// What clients may take of the server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Bytes of a body.
    pub body: usize,
    /// Connections. One more takes the place of the one that has been silent for the longest time.
    pub connections: usize,
    /// How long a request may take to arrive, and how long a connection may be silent.
    pub patience: Duration,
}

impl Default for Limits {
    /// Firecracker's longest body, 64 connections, and half a minute.
    fn default() -> Self {
        Self {
            body: MAX_BODY,
            connections: 64,
            patience: Duration::from_secs(30),
        }
    }
}

/// The most bytes of a request line and its headers; hyper wants 8 KiB at least.
const MAX_HEAD: usize = 16 << 10;
/// The most headers.
const MAX_HEADERS: usize = 64;
/// How long answers may take to leave when the server ends.
const FAREWELL: Duration = Duration::from_millis(500);
/// How long to wait when the process has no descriptor for one more connection.
const REST: Duration = Duration::from_millis(50);

/// An API that is served, until this is dropped.
pub struct Server {
    /// Closed to end it.
    ends: Option<std::os::unix::net::UnixStream>,
    thread: Option<JoinHandle<()>>,
    _socket: Socket,
}

impl Server {
    /// Listens at `path`, and serves what `controller` does on a new thread.
    ///
    /// A socket that is there already is replaced if nobody listens at it. Its mode is 0600.
    ///
    /// # Errors
    ///
    /// If the socket cannot be made, or the thread cannot be started.
    pub fn start<M: Machine + 'static>(
        path: &Path,
        controller: Controller<M>,
        limits: Limits,
    ) -> io::Result<Self> {
        let (socket, listener) = Socket::listen(path)?;
        tracing::info!(socket = %path.display(), "the API is served");
        let (ends, ended) = std::os::unix::net::UnixStream::pair()?;
        ended.set_nonblocking(true)?;
        let thread = thread::Builder::new().name("api".into()).spawn(move || {
            // Without it, the guest goes on: whoever waits for an answer sees the connection end.
            let _ = run(listener, ended, controller, limits);
        })?;
        Ok(Self {
            ends: Some(ends),
            thread: Some(thread),
            _socket: socket,
        })
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        drop(self.ends.take());
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

type Shared<M> = Arc<Mutex<Controller<M>>>;

fn run<M: Machine + 'static>(
    listener: UnixListener,
    ended: std::os::unix::net::UnixStream,
    controller: Controller<M>,
    limits: Limits,
) -> io::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let controller = Arc::new(Mutex::new(controller));
    runtime.block_on(async {
        let listener = tokio::net::UnixListener::from_std(listener)?;
        let ended = UnixStream::from_std(ended)?;
        let mut connections = Connections::default();
        let mut over = std::pin::pin!(ended.readable());
        loop {
            let accepted = std::future::poll_fn(|context| {
                if over.as_mut().poll(context).is_ready() {
                    return std::task::Poll::Ready(None);
                }
                listener.poll_accept(context).map(Some)
            });
            match accepted.await {
                None => break,
                Some(Ok((stream, _))) => {
                    connections.make_room(limits.connections);
                    connections.add(stream, controller.clone(), limits);
                }
                Some(Err(error)) => {
                    tracing::warn!(%error, "a client cannot be accepted");
                    tokio::time::sleep(REST).await;
                }
            }
        }
        drop(listener);
        connections.finish().await;
        Ok(())
    })
}

/// Those that are open.
#[derive(Default)]
struct Connections(Vec<Connection>);

struct Connection {
    task: AbortHandle,
    activity: Activity,
}

/// When a connection was last heard of, and how many of its requests are being answered.
type Activity = Arc<Mutex<(Instant, u32)>>;

impl Connections {
    /// Closes the connection that has been silent for the longest time, if there are as many as may be.
    fn make_room(&mut self, most: usize) {
        self.0.retain(|connection| !connection.task.is_finished());
        while self.0.len() >= most.max(1) {
            let silent = self.0.iter().enumerate();
            let Some((index, _)) = silent.min_by_key(|(_, c)| heard(&c.activity)) else {
                return;
            };
            tracing::warn!(
                most,
                "the connection that was silent for the longest time is closed"
            );
            self.0.swap_remove(index).task.abort();
        }
    }

    fn add<M: Machine + 'static>(
        &mut self,
        stream: UnixStream,
        controller: Shared<M>,
        limits: Limits,
    ) {
        let activity: Activity = Arc::new(Mutex::new((Instant::now(), 0)));
        let seen = activity.clone();
        let service = service_fn(move |request| {
            let (controller, seen) = (controller.clone(), seen.clone());
            async move {
                touch(&seen);
                let response = answer(request, &controller, limits).await;
                touch(&seen);
                Ok::<_, Infallible>(response)
            }
        });
        let connection = http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(limits.patience)
            .max_buf_size(MAX_HEAD)
            .max_headers(MAX_HEADERS)
            .auto_date_header(false)
            .serve_connection(TokioIo::new(stream), service);
        tracing::debug!("a client connects");
        let task = tokio::spawn(async move {
            // A client that breaks the rules was told so, or is gone.
            match connection.await {
                Ok(()) => tracing::debug!("a client's connection ends"),
                Err(error) => tracing::debug!(%error, "a client's connection breaks"),
            }
        });
        self.0.push(Connection {
            task: task.abort_handle(),
            activity,
        });
    }

    /// Lets answers leave that are on their way.
    async fn finish(&mut self) {
        let begun = Instant::now();
        let recent = |connection: &Connection| {
            !connection.task.is_finished() && heard(&connection.activity).elapsed() < FAREWELL
        };
        while begun.elapsed() < FAREWELL && self.0.iter().any(recent) {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }
}

fn heard(activity: &Activity) -> Instant {
    activity.lock().unwrap_or_else(PoisonError::into_inner).0
}

fn touch(activity: &Activity) {
    activity.lock().unwrap_or_else(PoisonError::into_inner).0 = Instant::now();
}

async fn answer<M: Machine>(
    request: Request<Incoming>,
    controller: &Shared<M>,
    limits: Limits,
) -> Response<Full<Bytes>> {
    let method = request.method().as_str().to_owned();
    let path = request.uri().path().to_owned();
    let result = match body(request.into_body(), limits).await {
        Ok(body) => {
            let mut controller = controller.lock().unwrap_or_else(PoisonError::into_inner);
            controller.request(&method, &path, &body)
        }
        Err(error) => Err(error),
    };
    response(result)
}

/// All of a body, if it is not too long and comes in time.
async fn body(incoming: Incoming, limits: Limits) -> Result<Bytes, ApiError> {
    let too_large = ApiError::TooLarge { limit: limits.body };
    // What says that it is too long is not waited for.
    let at_least = usize::try_from(incoming.size_hint().lower()).unwrap_or(usize::MAX);
    if at_least > limits.body {
        return Err(too_large);
    }
    let collected: Pin<Box<_>> = Box::pin(Limited::new(incoming, limits.body).collect());
    match timeout(limits.patience, collected).await {
        Ok(Ok(body)) => Ok(body.to_bytes()),
        Ok(Err(error)) if error.is::<LengthLimitError>() => Err(too_large),
        Ok(Err(error)) => Err(ApiError::Broken(error.to_string())),
        Err(_) => Err(ApiError::TooSlow {
            seconds: limits.patience.as_secs(),
        }),
    }
}

fn response(result: Result<Answer, ApiError>) -> Response<Full<Bytes>> {
    let mut kind = "application/json";
    let (status, body) = match result {
        Ok(Answer::Done) => (StatusCode::NO_CONTENT, Bytes::new()),
        Ok(Answer::Json(text)) => (StatusCode::OK, text.into()),
        Ok(Answer::Document(text)) => (StatusCode::OK, text.into()),
        Ok(Answer::Text(text)) => {
            kind = "text/plain; version=0.0.4";
            (StatusCode::OK, text.into())
        }
        Err(error) => {
            let status = StatusCode::from_u16(error.status());
            let body = error.body().into();
            (status.unwrap_or(StatusCode::BAD_REQUEST), body)
        }
    };
    let has_body = !body.is_empty();
    let mut response = Response::new(Full::new(body));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(SERVER, HeaderValue::from_static("Goldcrest API"));
    if has_body {
        headers.insert(CONTENT_TYPE, HeaderValue::from_static(kind));
    }
    response
}
