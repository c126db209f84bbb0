//! Links the firmware as a unikernel.

fn main() {
    let link_args =
        std::env::var("DEP_GOLDCREST_GUEST_LINK_ARGS").expect("goldcrest-guest is a dependency");
    for argument in link_args.split(' ') {
        println!("cargo:rustc-link-arg-bins={argument}");
    }
}
