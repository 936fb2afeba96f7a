# Chooses the slot and boots it; run by U-Boot from the card. See docs/adr/0008.
# slot.txt has the slot to boot, `slot=a` or `slot=b`; try.txt, if there is one, a slot to boot once.
setenv card "${devtype} ${devnum}:${distro_bootpart}"
setenv slot a
if load ${card} ${kernel_addr_r} slot.txt; then env import -t -r ${kernel_addr_r} ${filesize} slot; fi

# It is gone before anything of that slot runs: whatever happens then, the next start is the usual one.
# A card that cannot be written is not tried.
if load ${card} ${kernel_addr_r} try.txt; then
  if fatrm ${card} try.txt; then env import -t -r ${kernel_addr_r} ${filesize} slot; fi
fi
echo "dertwin: slot ${slot}"

mw.b ${kernel_addr_r} 0 0x1000
load ${card} ${kernel_addr_r} ${slot}/cmdline.txt && setexpr.s bootargs *${kernel_addr_r}
load ${card} ${kernel_addr_r} ${slot}/vmlinuz
load ${card} ${ramdisk_addr_r} ${slot}/initrd.img
booti ${kernel_addr_r} ${ramdisk_addr_r}:${filesize} ${fdt_addr}

# Only a slot that cannot be loaded at all comes here.
echo "dertwin: slot ${slot} does not boot"
sleep 5
reset
