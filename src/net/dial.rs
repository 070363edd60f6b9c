//! Dialing: a connection to an address, and never to oneself.

use std::io;
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use socket2::SockRef;

/// Connects within this time.
pub fn dial(address: SocketAddr, within: Duration) -> io::Result<TcpStream> {
    let stream = TcpStream::connect_timeout(&address, within)?;
    refuse_self_connection(&stream)?;
    Ok(stream)
}

/// Refuses a connection whose two ends are one socket. If no process listens on a local port, the system may choose
/// that port as the caller's own, and the socket connects to itself. Such a connection would keep the port from the
/// server that is to restart, and so would its TIME_WAIT state. So the connection is reset, which leaves none.
pub fn refuse_self_connection(stream: &TcpStream) -> io::Result<()> {
    if stream.local_addr()? != stream.peer_addr()? {
        return Ok(());
    }
    SockRef::from(stream).set_linger(Some(Duration::ZERO))?;
    Err(io::Error::new(io::ErrorKind::ConnectionRefused, "no process listens there"))
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use socket2::{Domain, Socket, Type};

    use super::*;

    #[test]
    fn self_connection_is_refused_and_leaves_the_port_free() {
        let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
        socket.bind(&"127.0.0.1:0".parse::<SocketAddr>().unwrap().into()).unwrap();
        let address = socket.local_addr().unwrap();
        socket.connect(&address).unwrap();
        let stream = TcpStream::from(socket);
        assert_eq!(stream.local_addr().unwrap(), stream.peer_addr().unwrap());
        let address = stream.local_addr().unwrap();
        assert_eq!(refuse_self_connection(&stream).unwrap_err().kind(), io::ErrorKind::ConnectionRefused);
        drop(stream);
        TcpListener::bind(address).expect("a server can take the port at once");
    }

    #[test]
    fn connection_to_another_socket_is_accepted() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        dial(listener.local_addr().unwrap(), Duration::from_secs(5)).unwrap();
    }
}
