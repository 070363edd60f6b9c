#!/bin/sh
# Stands for `cargo` in the tests of the scripts; what it does is in a file beside the link through which it was called.
# shellcheck source=/dev/null
. "$(dirname "$0")/behavior"
