# Sallyport, the gateway and the router. docs/container.md tells how to run it.

# ---- build and test ----------------------------------------------------------------------------
FROM debian:bookworm-slim AS build
WORKDIR /src
# The Makefile knows what it needs. Alone here, it keeps this layer as long as it does not change.
COPY Makefile ./
RUN apt-get -qq update && apt-get -qq -y install --no-install-recommends make >/dev/null \
 && make deps-build
COPY . ./
RUN make -j"$(nproc)" all && make -j"$(nproc)" check \
 && make install DESTDIR=/out PREFIX=/usr/local \
 && strip /out/usr/local/sbin/*

# ---- what runs ---------------------------------------------------------------------------------
FROM debian:bookworm-slim
LABEL org.opencontainers.image.title="sallyport" \
      org.opencontainers.image.description="XMPP server-to-server federation gateway" \
      org.opencontainers.image.licenses="MIT"
RUN groupadd --gid 999 sallyport \
 && useradd --uid 999 --gid 999 --no-create-home --home-dir /nonexistent \
            --shell /usr/sbin/nologin sallyport \
 && apt-get -qq update \
 && DEBIAN_FRONTEND=noninteractive apt-get -qq -y install --no-install-recommends \
      ca-certificates libc-ares2 libconfig9 libexpat1 libidn2-0 libssl3 libstrophe0 libuv1 \
      libyaml-0-2 \
      >/dev/null \
 && rm -rf /var/lib/apt/lists/* /var/log/apt /var/log/dpkg.log
COPY --from=build /out/ /
USER sallyport
# A library that is missing above fails here, not at the first start.
RUN /usr/local/sbin/sallyport --version && /usr/local/sbin/sallyport-router --version \
 && /usr/local/bin/sallyportctl --version
EXPOSE 5269
STOPSIGNAL SIGTERM
ENTRYPOINT ["/usr/local/sbin/sallyport"]
CMD ["--config", "/etc/sallyport/sallyport.conf"]
