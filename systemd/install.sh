#!/bin/sh
# `make install` and `make uninstall`.  Run again to upgrade: configurations and state stay.
#
#   PREFIX      the programs, in a Python environment of their own (/opt/escra)
#   BINDIR      where people's PATH finds the three commands (/usr/local/bin)
#   SHAREDIR    manual pages and completions (/usr/local/share)
#   UNITDIR     unit files (/etc/systemd/system)
#   EXTRAS      optional parts of pyproject.toml, separated by commas (pki,report,top); - for none
#   DESTDIR     for packages: everything goes below this folder, and nothing outside it is touched
#   PURGE=1     uninstall: configuration, state and users go too
set -eu
umask 022

: "${DESTDIR:=}" "${EXTRAS:=pki,report,top}" "${PURGE:=}" "${PYTHON:=python3}"
: "${PREFIX:=/opt/escra}" "${BINDIR:=/usr/local/bin}" "${SHAREDIR:=/usr/local/share}"
: "${UNITDIR:=/etc/systemd/system}" "${ZSHDIR:=$SHAREDIR/zsh/site-functions}"

COMMANDS="escra escra-controller escra-agent"
UNITS="escra-controller.service escra-agent.service"
# Is there a pip that installs into other environments (pip --python)?
SUITS='import pip, sys; sys.exit(tuple(map(int, pip.__version__.split(".")[:2])) < (22, 3))'
SYSUSERS=/usr/lib/sysusers.d/escra.conf
venv=$DESTDIR$PREFIX
here=$(dirname "$0")

say() { printf '%s\n' "$*"; }
fail() { printf 'make %s: %s\n' "$action" "$*" >&2; exit 1; }
# Are we changing this host, which systemd runs, and not a package?
live() { [ -z "$DESTDIR" ] && [ -d /run/systemd/system ]; }

check_host() {
    [ -n "$DESTDIR" ] && return
    [ "$(id -u)" = 0 ] || fail "this writes to $PREFIX and /etc; run it as root"
    [ "$PREFIX" = /usr/lib/escra ] || [ ! -e /usr/lib/escra ] ||
        fail "the Debian package escra is installed; remove it first (apt remove escra), or upgrade it"
}

install_programs() {
    # The system's pip saves making one there, which takes as long as all the rest.
    modules=escra_common,pip without=
    ! "$PYTHON" -c "$SUITS" 2>/dev/null || modules=escra_common without=--without-pip
    # Made again when the system's Python is another than it was made with.
    "$venv/bin/python" -c "import $modules" 2>/dev/null || "$PYTHON" -m venv --clear $without "$venv" ||
        fail "no Python environment in $venv: it takes Python 3.11 or newer with venv (apt install python3-venv)"
    [ "$EXTRAS" != - ] || EXTRAS=
    if [ "$without" ]; then
        set -- "$PYTHON" -m pip --python "$venv/bin/python"
    else
        set -- "$venv/bin/python" -m pip
    fi
    "$@" install --quiet --disable-pip-version-check --no-warn-script-location --no-compile \
        -c "$here/../constraints.txt" "$here/..${EXTRAS:+[$EXTRAS]}"
    # Two thirds of the compiling would be for languages that nobody highlights here.
    [ -n "$DESTDIR" ] || "$venv/bin/python" -m compileall -q -j 0 -x '/pygments/(lexers|styles)/' "$venv/lib"
}

install_units() {
    for unit in $UNITS; do
        install -d "$DESTDIR$UNITDIR"
        sed "s|/opt/escra/|$PREFIX/|g" "$here/$unit" >"$DESTDIR$UNITDIR/$unit"
    done
    install -D -m 644 "$here/escra.sysusers.conf" "$DESTDIR$SYSUSERS"
}

install_configurations() {
    install -d "$DESTDIR/etc/escra"
    for daemon in controller agent; do
        [ -e "$DESTDIR/etc/escra/$daemon.toml" ] ||
            install -m 644 "$here/$daemon.example.toml" "$DESTDIR/etc/escra/$daemon.toml"
    done
}

install_for_people() {
    install -d "$DESTDIR$BINDIR"
    set --
    for command in $COMMANDS; do
        ln -sfn "$PREFIX/bin/$command" "$DESTDIR$BINDIR/$command"
        for shell in bash zsh fish; do
            set -- "$@" $shell "$command" "$(completion $shell "$command")"
        done
    done
    "$venv/bin/python" -B "$here/forpeople.py" "$DESTDIR$SHAREDIR/man" "$@"
}

# Where each shell looks for the completion of a command.
completion() {
    case $1 in
    bash) say "$DESTDIR$SHAREDIR/bash-completion/completions/$2" ;;
    zsh) say "$DESTDIR$ZSHDIR/_$2" ;;
    fish) say "$DESTDIR$SHAREDIR/fish/vendor_completions.d/$2.fish" ;;
    esac
}

# What was made below DESTDIR is to run from PREFIX, and what installed it stays behind.
settle_in_package() {
    ! "$venv/bin/python" -c 'import pip' 2>/dev/null ||
        "$venv/bin/python" -m pip --quiet uninstall --yes setuptools pip
    rm -f "$venv"/lib/python*/site-packages/escra-*/direct_url.json
    find "$venv/bin" ! -type d ! -name 'python*' ! -name 'escra*' -exec rm {} +
    find "$venv" -name __pycache__ -prune -exec rm -r {} +
    grep -rlI "$DESTDIR" "$venv/bin" "$venv/pyvenv.cfg" | xargs sed -i "s|$DESTDIR||g"
}

do_install() {
    check_host
    install_programs
    install_units
    install_configurations
    install_for_people
    if [ -n "$DESTDIR" ]; then
        settle_in_package
        return
    fi
    ! live || { systemd-sysusers "$SYSUSERS" && systemctl daemon-reload; }
    if live && systemctl --quiet is-active $UNITS; then
        say "The daemons still run the version they were started with.  Containers keep their limits over:"
        say "    systemctl restart escra-controller escra-agent"
    else
        say "Installed.  Look at /etc/escra/agent.toml and, on one host, at /etc/escra/controller.toml; then:"
        say "    systemctl enable --now escra-controller escra-agent    # on other hosts escra-agent alone"
    fi
}

# Before anything goes: afterwards nobody would know the original limits.
restore_limits() {
    [ -x "$venv/bin/escra-agent" ] || return 0
    config=/etc/escra/agent.toml
    [ -e $config ] || config=/dev/null # all defaults
    "$venv/bin/escra-agent" restore --config $config ||
        fail "not all containers have their original limits back, see above; nothing was removed"
}

do_uninstall() {
    check_host
    if live; then
        systemctl --quiet disable --now $UNITS 2>/dev/null || true
        restore_limits
    fi
    for command in $COMMANDS; do
        rm -f "$DESTDIR$BINDIR/$command"
        for shell in bash zsh fish; do rm -f "$(completion $shell "$command")"; done
    done
    for unit in $UNITS; do rm -f "$DESTDIR$UNITDIR/$unit"; done
    man=$DESTDIR$SHAREDIR/man
    rm -f "$DESTDIR$SYSUSERS" "$man"/man1/escra.1 "$man"/man5/escra-*.toml.5 "$man"/man8/escra-*.8
    rm -rf "$venv"
    # systemd remembers the limits the agent asked it for, until it reads its units again.
    ! live || systemctl daemon-reload
    if [ "$PURGE" = 1 ]; then
        rm -rf "$DESTDIR"/etc/escra "$DESTDIR"/var/lib/escra-agent
        rm -rf "$DESTDIR"/var/lib/escra-controller "$DESTDIR"/var/lib/private/escra-controller
        [ -n "$DESTDIR" ] || { userdel escra-agent; groupdel escra; } 2>/dev/null || true
    elif [ -z "$DESTDIR" ]; then
        say "Removed.  /etc/escra and the state in /var/lib/escra-* stay; PURGE=1 removes them too."
    fi
}

action=${1:-}
case $action in
install) do_install ;;
uninstall) do_uninstall ;;
*) say "usage: $0 install|uninstall" >&2; exit 2 ;;
esac
