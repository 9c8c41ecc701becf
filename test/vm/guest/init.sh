# Process 1 once the root is the host's file system with a writable layer: makes the machine usable, runs the command
# of the exchange folder, leaves its exit status there and ends the machine.
vm=/run/vm
busybox=$vm/busybox
# An emulated processor is slower by about this factor, at times twice that (test/patience.ts).
export TEST_PATIENCE="${TEST_PATIENCE:-5}"
export PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin HOME=/root TERM="${TERM:-linux}"

$busybox mount -t proc proc /proc
$busybox mount -t sysfs sys /sys
$busybox mount -t devtmpfs dev /dev
$busybox mkdir -p /dev/pts /dev/shm
$busybox mount -t devpts devpts /dev/pts
$busybox mount -t tmpfs shm /dev/shm
$busybox mount -t cgroup2 cgroup /sys/fs/cgroup
$busybox mount -t bpf bpf /sys/fs/bpf
$busybox ln -sf /proc/self/fd /dev/fd
$busybox hostname vm
$busybox ip link set lo up

# Modules on demand, by kmod's modprobe: that of busybox does not wait for a module that somebody else is loading.
. $vm/exchange/settings
$busybox mkdir -p /lib/modules
[ -e "/lib/modules/$($busybox uname -r)" ] || $busybox ln -s "$modules" "/lib/modules/$($busybox uname -r)"

if [ "$interactive" = yes ]; then
  $busybox setsid $busybox cttyhack $busybox sh $vm/exchange/command </dev/console >/dev/console 2>&1
else
  $busybox sh $vm/exchange/command </dev/null >$vm/exchange/stdout 2>$vm/exchange/stderr
fi
echo $? >$vm/exchange/status
$busybox reboot -f
