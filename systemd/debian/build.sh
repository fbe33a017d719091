#!/bin/sh
# `make deb [VERSION=1.2.3]`: dist/escra_VERSION_ARCH.deb, judged by lintian.
set -eu
cd "$(dirname "$0")/../.."
: "${VERSION:=$(sed -n 's/^version = "\(.*\)"/\1/p' pyproject.toml)}"

missing=
for need in dh=debhelper lintian=lintian dpkg-shlibdeps=dpkg-dev; do
    command -v "${need%=*}" >/dev/null || missing="$missing ${need#*=}"
done
[ -z "$missing" ] || { echo "make deb: first install$missing (apt install$missing python3-venv)" >&2; exit 1; }

sources=build/deb/escra-$VERSION
rm -rf build/deb
mkdir -p "$sources" dist
tar -c --exclude=__pycache__ Makefile README.md CHANGELOG.md pyproject.toml constraints.txt systemd \
    escra_common escra_agent escra_controller | tar -C "$sources" -x
mv "$sources/systemd/debian" "$sources/debian"

# The time of the last change, so that the same sources make the same package.
SOURCE_DATE_EPOCH=${SOURCE_DATE_EPOCH:-$(git log -1 --format=%ct 2>/dev/null || date +%s)}
export SOURCE_DATE_EPOCH
cat >"$sources/debian/changelog" <<CHANGELOG
escra ($VERSION) stable; urgency=medium

  * See changelog.gz for what is new in this version.

 -- Escra <escra@example.org>  $(date -R -d "@$SOURCE_DATE_EPOCH")
CHANGELOG

log=build/deb/log
(cd "$sources" && dpkg-buildpackage --build=binary --no-sign) >$log 2>&1 || { tail -n 30 $log >&2; exit 1; }
lintian --allow-root --fail-on error --tag-display-limit 0 build/deb/*.deb
mv build/deb/*.deb dist/
ls dist/escra_"$VERSION"_*.deb
