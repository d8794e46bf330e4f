//! A wire that can be cut, held back or led elsewhere. TLS goes through it untouched.

use std::io::{ErrorKind, Read as _, Write as _};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU16, AtomicU64, Ordering::SeqCst};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

use super::Result;

pub(crate) struct Proxy {
    port: u16,
    wire: Arc<Wire>,
}

struct Wire {
    to: AtomicU16,
    cut: AtomicBool,
    /// Bytes of the server that a held connection did not pass on.
    withheld: AtomicU64,
    connections: Mutex<Vec<Connection>>,
}

struct Connection {
    client: TcpStream,
    held: Arc<AtomicBool>,
}

impl Proxy {
    pub(crate) fn start(to: u16) -> Result<Self> {
        let listener = TcpListener::bind(("127.0.0.1", 0))?;
        let port = listener.local_addr()?.port();
        let wire = Arc::new(Wire {
            to: AtomicU16::new(to),
            cut: AtomicBool::new(false),
            withheld: AtomicU64::new(0),
            connections: Mutex::default(),
        });
        let server = Arc::clone(&wire);
        thread::spawn(move || {
            for client in listener.incoming().flatten() {
                if !server.cut.load(SeqCst) {
                    // A connection that fails here is one that the gate sees closed, as it should.
                    let _ = server.carry(client);
                }
            }
        });
        Ok(Self { port, wire })
    }

    pub(crate) fn port(&self) -> u16 {
        self.port
    }

    /// Leads new connections elsewhere, as a Service does when a pod goes; those that exist stay.
    pub(crate) fn lead_to(&self, to: u16) {
        self.wire.to.store(to, SeqCst);
    }

    /// Ends all connections; new ones are closed at once.
    pub(crate) fn cut(&self) {
        self.wire.cut.store(true, SeqCst);
        for connection in self.wire.connections().drain(..) {
            let _ = connection.client.shutdown(Shutdown::Both);
        }
    }

    /// Lets connections through again.
    pub(crate) fn mend(&self) {
        self.wire.cut.store(false, SeqCst);
    }

    /// Keeps back what the server says on the connections that exist now, until the client says something on them.
    ///
    /// That is exactly the watches: over HTTP/1.1 a connection with an answer under way takes no further request, so one
    /// on which the client speaks again was idle, and a live read that reuses it must get through.
    pub(crate) fn hold_back(&self) {
        for connection in self.wire.connections().iter() {
            connection.held.store(true, SeqCst);
        }
    }

    pub(crate) fn has_withheld(&self) -> bool {
        self.wire.withheld.load(SeqCst) > 0
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        // The thread that accepts stays until the end of the run, and costs nothing.
        self.cut();
    }
}

impl Wire {
    fn connections(&self) -> MutexGuard<'_, Vec<Connection>> {
        self.connections.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn carry(self: &Arc<Self>, client: TcpStream) -> Result {
        let server = TcpStream::connect(("127.0.0.1", self.to.load(SeqCst)))?;
        let held = Arc::new(AtomicBool::new(false));
        self.connections()
            .push(Connection { client: client.try_clone()?, held: Arc::clone(&held) });
        if self.cut.load(SeqCst) {
            client.shutdown(Shutdown::Both)?;
        }

        let (from, into, spoken) = (client.try_clone()?, server.try_clone()?, Arc::clone(&held));
        thread::spawn(move || pump(from, into, |_| spoken.store(false, SeqCst)));
        let wire = Arc::clone(self);
        thread::spawn(move || pump(server, client, |piece| wire.pass(&held, piece)));
        Ok(())
    }

    fn pass(&self, held: &AtomicBool, piece: &[u8]) {
        if held.load(SeqCst) {
            self.withheld.fetch_add(piece.len() as u64, SeqCst);
        }
        while held.load(SeqCst) && !self.cut.load(SeqCst) {
            thread::sleep(Duration::from_millis(10));
        }
    }
}

/// Copies until either side ends; each piece goes on when `pass` returns.
fn pump(mut from: TcpStream, mut into: TcpStream, pass: impl Fn(&[u8])) {
    let mut buffer = [0; 16 * 1024];
    loop {
        let read = match from.read(&mut buffer) {
            Err(error) if error.kind() == ErrorKind::Interrupted => continue,
            Ok(0) | Err(_) => break,
            Ok(read) => read,
        };
        pass(&buffer[..read]);
        if into.write_all(&buffer[..read]).is_err() {
            break;
        }
    }
    let _ = from.shutdown(Shutdown::Both);
    let _ = into.shutdown(Shutdown::Both);
}
