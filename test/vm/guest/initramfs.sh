#!/busybox sh
# First process of the virtual machine, in its initramfs: puts a writable layer over the host's file system and moves
# into it. Only process 1 may do that (switch_root), and the kernel looks for modules and modprobe only in the root of
# process 1: a chroot would leave every module on demand (nft_fib, ip_vs, sctp) unfound.
fail() {
  echo "virtual machine: $*" >/dev/console
  /busybox reboot -f
}
/busybox mkdir -p /proc /lower /layer /root
/busybox mount -t proc proc /proc
while read -r module; do
  /busybox insmod "/modules/$module.ko" || fail "cannot load $module"
done </modules/order
# Nothing on the host changes while we run, as far as we care: cached for good. 256 KiB per request is about what the
# transport can carry.
/busybox mount -t 9p -o ro,trans=virtio,version=9p2000.L,cache=loose,msize=262144 host /lower ||
  fail 'cannot mount the file system of the host'
/busybox mount -t tmpfs -o size=75% layer /layer
/busybox mkdir /layer/upper /layer/work
/busybox mount -t overlay -o lowerdir=/lower,upperdir=/layer/upper,workdir=/layer/work overlay /root ||
  fail 'cannot mount the writable layer'
/busybox mount -t tmpfs run /root/run
/busybox mkdir -p /root/run/vm/exchange
/busybox cp /busybox /init.sh /root/run/vm/
/busybox mount -t 9p -o trans=virtio,version=9p2000.L,msize=262144 exchange /root/run/vm/exchange ||
  fail 'cannot mount the exchange folder'
exec /busybox switch_root /root /run/vm/busybox sh /run/vm/init.sh
