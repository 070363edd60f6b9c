use std::net::{Shutdown, TcpListener};
use std::thread;

use super::*;

/// Both ends of a connection.
fn connection() -> (TcpStream, TcpStream) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let calling = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    calling.set_nodelay(true).unwrap();
    (calling, listener.accept().unwrap().0)
}

/// The result of reading these bytes, up to the end of the connection after them.
fn read_all(bytes: &[u8]) -> Result<Vec<Vec<u8>>, FrameError> {
    let (mut calling, called) = connection();
    let bytes = bytes.to_vec();
    let writer = thread::spawn(move || {
        // The reader may close first.
        let _ = calling.write_all(&bytes);
    });
    let mut reader = FrameReader::new(called, 300_000);
    let mut values = Vec::new();
    let outcome = loop {
        match reader.read::<Vec<u8>>(Some(Instant::now() + Duration::from_secs(20))) {
            Ok(Some(value)) => values.push(value),
            Ok(None) => break Ok(values),
            Err(error) => break Err(error),
        }
    };
    drop(reader);
    writer.join().unwrap();
    outcome
}

fn malformed(bytes: &[u8]) -> (u64, String) {
    match read_all(bytes) {
        Err(FrameError::Malformed { length, what }) => (length, what),
        other => panic!("{other:?}"),
    }
}

#[test]
fn frames_of_every_size_round_trip() {
    let sizes =
        [0, 1, 7, 1_000, FIRST_BUFFER_BYTES - 9, FIRST_BUFFER_BYTES, READ_BYTES, 3 * READ_BYTES + 1, 250_000, 2];
    let values: Vec<Vec<u8>> = sizes.iter().map(|size| (0..*size).map(|n| n as u8).collect()).collect();
    let bytes: Vec<u8> = values.iter().flat_map(frame).collect();
    assert_eq!(read_all(&bytes).unwrap(), values);
}

#[test]
fn a_frame_may_be_split_at_every_byte() {
    let bytes = [frame(&vec![1u8, 2, 3]), frame(&vec![4u8; 20])].concat();
    for split in 1..bytes.len() {
        let (mut calling, called) = connection();
        let mut reader = FrameReader::new(called, 100);
        calling.write_all(&bytes[..split]).unwrap();
        // The first part is received and read before the second is sent.
        while reader.unused() < split {
            reader.fill(None).unwrap();
        }
        calling.write_all(&bytes[split..]).unwrap();
        assert_eq!(reader.read::<Vec<u8>>(None).unwrap().unwrap(), [1, 2, 3], "split at {split}");
        assert_eq!(reader.read::<Vec<u8>>(None).unwrap().unwrap(), [4; 20], "split at {split}");
        assert!(!reader.has_more());
    }
}

#[test]
fn end_of_stream_is_an_error_only_inside_a_frame() {
    let bytes = frame(&vec![9u8; 10]);
    assert_eq!(read_all(&bytes).unwrap().len(), 1);
    assert_eq!(read_all(&[]).unwrap().len(), 0);
    for cut in 1..bytes.len() {
        let (length, what) = malformed(&bytes[..cut]);
        assert_eq!(length, cut as u64);
        assert!(what.contains(&format!("closed after {cut} of")), "{what}");
    }
}

#[test]
fn every_flipped_bit_is_detected() {
    let bytes = frame(&vec![9u8; 10]);
    for bit in 0..bytes.len() * 8 {
        let mut flipped = bytes.clone();
        flipped[bit / 8] ^= 1 << (bit % 8);
        malformed(&flipped);
    }
}

#[test]
fn corrupt_length_is_detected_before_the_payload_arrives() {
    for bit in 0..LENGTH_BYTES * 8 {
        let mut bytes = frame(&vec![9u8; 10]);
        bytes[bit / 8] ^= 1 << (bit % 8);
        let (mut calling, called) = connection();
        // The connection stays open: without the checksum, the reader would wait for the rest.
        calling.write_all(&bytes).unwrap();
        let mut reader = FrameReader::new(called, 300_000);
        let error = reader.read::<Vec<u8>>(Some(Instant::now() + Duration::from_secs(20))).unwrap_err();
        assert!(matches!(error, FrameError::Malformed { .. }), "bit {bit}: {error}");
    }
}

#[test]
fn false_length_costs_no_memory() {
    let mut bytes = frame(&vec![1u8; 100]);
    bytes[..4].copy_from_slice(&300_001u32.to_le_bytes());
    let (length, what) = malformed(&bytes);
    assert_eq!(length, 300_001, "the announced length");
    assert!(what.contains("300001 bytes") && what.contains("maximum is 300000"), "{what}");

    // The length is within the limit, but no bytes follow: the buffer stays as small as the bytes received.
    bytes[..HEADER_BYTES].copy_from_slice(&header(&vec![0; 300_000]));
    let (mut calling, called) = connection();
    calling.write_all(&bytes).unwrap();
    calling.shutdown(Shutdown::Write).unwrap();
    let mut reader = FrameReader::new(called, 300_000);
    assert!(reader.read::<Vec<u8>>(None).is_err());
    assert!(reader.buffer.capacity() <= FIRST_BUFFER_BYTES, "{} bytes", reader.buffer.capacity());
}

#[test]
fn large_buffer_is_released() {
    let (mut calling, called) = connection();
    let bytes = frame(&vec![1u8; 250_000]);
    let writer = thread::spawn(move || calling.write_all(&bytes).map(|()| calling));
    let mut reader = FrameReader::new(called, 300_000);
    assert_eq!(reader.read::<Vec<u8>>(None).unwrap().unwrap().len(), 250_000);
    assert!(reader.buffer.capacity() <= READ_BYTES, "{} bytes", reader.buffer.capacity());
    writer.join().unwrap().unwrap();
}

#[test]
fn trailing_bytes_in_a_frame_are_refused() {
    let mut payload = codec::encode(&vec![1u8, 2]);
    payload.push(0);
    let bytes = [&header(&payload)[..], &payload].concat();
    let (length, what) = malformed(&bytes);
    assert_eq!(length, bytes.len() as u64);
    assert!(what.contains("1 unexpected bytes follow"), "{what}");
}

#[test]
fn a_deadline_is_for_the_whole_frame_and_not_for_each_byte() {
    let (mut calling, called) = connection();
    let (stop, stopped) = crossbeam_channel::bounded::<()>(0);
    let trickle = thread::spawn(move || {
        let bytes = frame(&vec![0u8; 10_000]);
        for byte in bytes.chunks(1) {
            let timed_out = stopped.recv_timeout(Duration::from_millis(5)).is_err_and(|error| error.is_timeout());
            if !timed_out || calling.write_all(byte).is_err() {
                return;
            }
        }
    });
    let mut reader = FrameReader::new(called, 300_000);
    let begun = Instant::now();
    let error = reader.read::<Vec<u8>>(Some(begun + Duration::from_millis(200))).unwrap_err();
    drop(stop);
    trickle.join().unwrap();
    assert!(begun.elapsed() >= Duration::from_millis(200));
    let FrameError::TimedOut { received, waited } = error else { panic!("{error}") };
    assert!(received > 1, "{received} bytes came");
    assert!(waited > Duration::from_millis(100), "the whole frame was waited for {waited:?}, not its last byte");
}

#[test]
fn waiting_for_a_first_byte_has_its_own_deadline() {
    let (mut calling, called) = connection();
    let mut reader = FrameReader::new(called, 100);
    let error = reader.read::<Vec<u8>>(Some(Instant::now() + Duration::from_millis(20))).unwrap_err();
    assert!(matches!(error, FrameError::TimedOut { received: 0, .. }), "{error}");
    // The socket's time-out of that read does not apply to the next one.
    let writer = thread::spawn(move || {
        thread::sleep(Duration::from_millis(100));
        calling.write_all(&frame(&vec![5u8])).map(|()| calling)
    });
    assert_eq!(reader.read::<Vec<u8>>(None).unwrap().unwrap(), [5]);
    writer.join().unwrap().unwrap();
}

#[test]
fn reader_that_reads_nothing_blocks_a_writer_until_the_deadline() {
    let (calling, _called) = connection();
    let begun = Instant::now();
    let error = write_before(&calling, &vec![0; 64 << 20], begun + Duration::from_millis(150)).unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::TimedOut);
    assert!(begun.elapsed() >= Duration::from_millis(150));
}

/// Grants this number of bytes, and records the requests.
#[derive(Debug)]
struct TestAllowance(Arc<std::sync::Mutex<(usize, usize)>>);

impl Allowance for TestAllowance {
    fn grow(&mut self, bytes: usize) -> bool {
        let (left, used) = &mut *self.0.lock().unwrap();
        let fits = *used + bytes <= *left;
        *used += if fits { bytes } else { 0 };
        fits
    }

    fn frame_done(&mut self, _frame: usize, returned: usize) {
        self.0.lock().unwrap().1 -= returned;
    }

    fn is_closed(&self) -> bool {
        false
    }
}

#[test]
fn reader_requests_its_buffer_and_releases_it_when_it_is_empty() {
    let (mut calling, called) = connection();
    let budget = Arc::new(std::sync::Mutex::new((300_000, 0)));
    let mut reader = FrameReader::new(called, 300_000);
    reader.set_allowance(Box::new(TestAllowance(budget.clone())));
    let writer = thread::spawn(move || {
        let frames = [frame(&vec![1u8; 250_000]), frame(&vec![2u8; 10]), frame(&vec![3u8; 299_000])];
        // The reader closes before the last frame is sent.
        let _ = calling.write_all(&frames.concat());
    });
    assert_eq!(reader.read::<Vec<u8>>(None).unwrap().unwrap().len(), 250_000);
    assert_eq!(reader.read::<Vec<u8>>(None).unwrap().unwrap().len(), 10);
    assert_eq!(budget.lock().unwrap().1, reader.buffer.len(), "what it holds is what it was granted");
    budget.lock().unwrap().0 = 100_000;
    let error = reader.read::<Vec<u8>>(None).unwrap_err();
    assert!(matches!(error, FrameError::NoSpace { received } if received > 0), "{error}");
    assert!(budget.lock().unwrap().1 <= 300_000);
    drop(reader);
    writer.join().unwrap();
}

#[test]
fn buffer_is_released_if_no_next_frame_has_started() {
    for size in [FIRST_BUFFER_BYTES + 1, 20_000, READ_BYTES - HEADER_BYTES] {
        let (mut calling, called) = connection();
        let budget = Arc::new(std::sync::Mutex::new((300_000, 0)));
        let mut reader = FrameReader::new(called, 300_000);
        reader.set_allowance(Box::new(TestAllowance(budget.clone())));
        calling.write_all(&frame(&vec![1u8; size])).unwrap();
        assert_eq!(reader.read::<Vec<u8>>(None).unwrap().unwrap().len(), size);
        assert!(reader.buffer.len() <= FIRST_BUFFER_BYTES, "{} bytes for a frame of {size}", reader.buffer.len());
        assert_eq!(budget.lock().unwrap().1, reader.buffer.len(), "what it holds is what it was granted");
    }
}

/// Grants everything, and counts how often memory is given back.
#[derive(Debug)]
struct AllowanceReturns(Arc<std::sync::atomic::AtomicUsize>);

impl Allowance for AllowanceReturns {
    fn grow(&mut self, _bytes: usize) -> bool {
        true
    }

    fn frame_done(&mut self, _frame: usize, returned: usize) {
        self.0.fetch_add(usize::from(returned > 0), std::sync::atomic::Ordering::Relaxed);
    }

    fn is_closed(&self) -> bool {
        false
    }
}

#[test]
fn small_frames_after_a_large_one_are_not_moved_one_by_one() {
    let (mut calling, called) = connection();
    let returns = Arc::default();
    let mut reader = FrameReader::new(called, 300_000);
    reader.set_allowance(Box::new(AllowanceReturns(Arc::clone(&returns))));
    // The last part of the large frame arrives with all the small ones.
    let (large, small) = (frame(&vec![1u8; 70_000]), frame(&vec![2u8; 100]).repeat(500));
    calling.write_all(&large[..FIRST_BUFFER_BYTES + READ_BYTES]).unwrap();
    while reader.unused() < FIRST_BUFFER_BYTES + READ_BYTES {
        reader.fill(None).unwrap();
    }
    calling.write_all(&[&large[FIRST_BUFFER_BYTES + READ_BYTES..], &small].concat()).unwrap();
    assert_eq!(reader.read::<Vec<u8>>(None).unwrap().unwrap().len(), 70_000);
    for _ in 0..500 {
        assert_eq!(reader.read::<Vec<u8>>(None).unwrap().unwrap(), [2; 100]);
    }
    let returns = returns.load(std::sync::atomic::Ordering::Relaxed);
    assert!((1..=6).contains(&returns), "{returns} times");
}

#[test]
fn buffer_is_kept_if_the_next_frame_needs_it() {
    for (next, returned) in [(70_000, 0), (10, 1)] {
        let (mut calling, called) = connection();
        let returns = Arc::default();
        let mut reader = FrameReader::new(called, 300_000);
        reader.set_allowance(Box::new(AllowanceReturns(Arc::clone(&returns))));
        let bytes = [frame(&vec![1u8; 70_000]), frame(&vec![2u8; next])].concat();
        let begun = bytes.len().min(frame(&vec![1u8; 70_000]).len() + HEADER_BYTES);
        calling.write_all(&bytes[..begun]).unwrap();
        while reader.unused() < begun {
            reader.fill(None).unwrap();
        }
        assert_eq!(reader.read::<Vec<u8>>(None).unwrap().unwrap().len(), 70_000);
        assert_eq!(returns.load(std::sync::atomic::Ordering::Relaxed), returned, "{next}");
        calling.write_all(&bytes[begun..]).unwrap();
        assert_eq!(reader.read::<Vec<u8>>(None).unwrap().unwrap(), vec![2; next]);
    }
}
