use std::io::Write;
use std::net::TcpListener;
use std::thread;

use super::*;
use crate::net::{FIRST_BUFFER_BYTES, FrameReader, frame};

const LARGE: usize = 90_000;
/// Room for three of the large requests; when more than two and a quarter are held, the oldest must go.
const MAX: usize = 3 * LARGE;
const PAST_GRACE: Duration = Duration::from_millis(GRACE.as_millis() as u64 + 50);

fn request_reader() -> Arc<RequestReader> {
    RequestReader::new(&Budget::new(MAX, FIRST_BUFFER_BYTES))
}

/// A client, and the reader of its requests.
fn connection(request_reader: &Arc<RequestReader>) -> (TcpStream, FrameReader) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    let (stream, address) = listener.accept().unwrap();
    let stream = Arc::new(stream);
    let mut reader = FrameReader::new(stream.clone(), 2 * LARGE);
    reader.set_allowance(request_reader.allowance(ClientSocket { stream, address }));
    (client, reader)
}

fn read(reader: &mut FrameReader) -> usize {
    reader.read::<Vec<u8>>(None).unwrap().unwrap().len()
}

#[test]
fn small_frames_do_not_keep_the_room_of_a_large_one() {
    let (request_reader, small) = (request_reader(), frame(&vec![2u8; 10]));
    // The beginning of the next frame arrives with each frame: the buffer is never empty.
    for started in [1, small.len() - 1] {
        let (mut client, mut reader) = connection(&request_reader);
        client.write_all(&[&frame(&vec![1u8; LARGE])[..], &small[..started]].concat()).unwrap();
        assert_eq!(read(&mut reader), LARGE);
        for _ in 0..3 {
            client.write_all(&[&small[started..], &small[..started]].concat()).unwrap();
            assert_eq!(read(&mut reader), 10);
        }
        assert_eq!(request_reader.budget.used(), 0, "{started} bytes of a next frame");
    }
}

#[test]
fn only_progress_in_proportion_to_the_held_bytes_begins_a_new_turn() {
    for (frame, returned, is_progress) in [(10, 0, false), (10, 1_000, true), (LARGE, 0, true)] {
        let request_reader = request_reader();
        let allowance = |(stream, _): (TcpStream, FrameReader)| {
            let address = stream.local_addr().unwrap();
            request_reader.allowance(ClientSocket { stream: stream.into(), address })
        };
        let [mut first, mut second] = [(); 2].map(|()| allowance(connection(&request_reader)));
        assert!(first.grow(2 * LARGE));
        thread::sleep(PAST_GRACE);
        first.frame_done(frame, returned);
        assert!(second.grow(LARGE / 2), "there is room for it");
        assert_eq!(first.is_closed(), !is_progress, "a frame of {frame}, {returned} given back");
    }
}
