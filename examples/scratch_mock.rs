fn main() {
    let mock = postrider::embedded::MockKafka::start(postrider::embedded::MockOptions { topics: std::env::args().skip(1).collect(), partitions: 2, reason: "scratch".into() }, &|_| {}).unwrap();
    println!("{}", mock.brokers());
    std::thread::sleep(std::time::Duration::from_secs(3000));
}
