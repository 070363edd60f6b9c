use std::io::Write;
use std::net::TcpListener;
use std::thread;

use super::*;
use crate::net::{FIRST_BUFFER_BYTES, FrameReader, frame};

const LARGE: usize = 90_000;
/// Room for three of the large ones, and so for two until the oldest must go.
const MAX: usize = 3 * LARGE;
const PAST_GRACE: Duration = Duration::from_millis(GRACE.as_millis() as u64 + 50);

fn intake() -> Arc<Intake> {
    Intake::new(&Budget::new(MAX, FIRST_BUFFER_BYTES))
}

/// A client, and the reader of what it says.
fn connection(intake: &Arc<Intake>) -> (TcpStream, FrameReader) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    let (stream, address) = listener.accept().unwrap();
    let stream = Arc::new(stream);
    let mut reader = FrameReader::new(stream.clone(), 2 * LARGE);
    reader.set_allowance(intake.allowance(Caller { stream, address }));
    (client, reader)
}

fn read(reader: &mut FrameReader) -> usize {
    reader.read::<Vec<u8>>(None).unwrap().unwrap().len()
}

#[test]
fn small_frames_do_not_keep_the_room_of_a_large_one() {
    let (intake, small) = (intake(), frame(&vec![2u8; 10]));
    // The beginning of the next frame comes with each: the buffer is never empty.
    for begun in [1, small.len() - 1] {
        let (mut client, mut reader) = connection(&intake);
        client.write_all(&[&frame(&vec![1u8; LARGE])[..], &small[..begun]].concat()).unwrap();
        assert_eq!(read(&mut reader), LARGE);
        for _ in 0..3 {
            client.write_all(&[&small[begun..], &small[..begun]].concat()).unwrap();
            assert_eq!(read(&mut reader), 10);
        }
        assert_eq!(intake.budget.used(), 0, "{begun} bytes of a next frame");
    }
}

#[test]
fn a_frame_that_gives_nothing_back_does_not_begin_a_turn_anew() {
    let intake = intake();
    let caller = |_| connection(&intake).0;
    let address = |stream: &TcpStream| stream.local_addr().unwrap();
    let [held, moving, third] =
        [(); 3].map(caller).map(|stream| Caller { address: address(&stream), stream: stream.into() });
    let [mut held, mut moving, mut third] = [held, moving, third].map(|caller| intake.allowance(caller));
    assert!(held.grow(LARGE) && moving.grow(LARGE));
    thread::sleep(PAST_GRACE);
    held.frame_done(0);
    moving.frame_done(1_000);
    assert!(third.grow(LARGE), "there is room for a third");
    assert_eq!((held.is_let_go(), moving.is_let_go()), (true, false));
}
