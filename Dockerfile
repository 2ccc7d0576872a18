# syntax=docker/dockerfile:1
# beast in a container: docker build -t beast . && docker compose up
#
# Container runtimes refuse io_uring by their default seccomp profile; the program finds that out, says so in
# its first line, and answers by epoll.

FROM rust:1.95-bookworm AS build
WORKDIR /src
COPY . .
# Downloads and objects stay in the builder's cache; the program is copied out of it.
RUN --mount=type=cache,target=/usr/local/cargo/registry \
    --mount=type=cache,target=/src/target \
    cargo build --release --locked --bin beast \
    && install -D --strip target/release/beast /out/usr/bin/beast \
    && install -d -m 0700 -o 65532 -g 65532 /out/data

# The slim image and not an empty one: `beast host check` is a shell script. The program itself needs
# nothing but the C library; the certificates it trusts are compiled in.
FROM debian:bookworm-slim
COPY --from=build /out/ /
ENV BEAST_DATA_DIR=/data \
    BEAST_LISTEN=0.0.0.0
# Nobody: a number, so that no name needs to exist and runtimes can see that it is not root.
USER 65532:65532
# The only place that is written to, so the root may be read-only.
VOLUME ["/data"]
EXPOSE 2679/udp 8080/tcp 8081/tcp 9091/tcp
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=10s --timeout=5s --start-period=10s --retries=3 CMD ["/usr/bin/beast", "health"]
ENTRYPOINT ["/usr/bin/beast"]
CMD ["serve"]
