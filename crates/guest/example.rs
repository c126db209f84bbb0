#![no_std]
#![no_main]

goldcrest_guest::main!(main);

fn main() {
    goldcrest_guest::println!("hello, {}", goldcrest_guest::command_line());
}
