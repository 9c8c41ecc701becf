import { GenericConnection } from '@kube-proxy-ts/netlink/generic';

const connection = GenericConnection.open();
const controller = connection.resolveFamily('nlctrl');
if (controller === undefined) throw new Error('this kernel has no generic netlink');

// CTRL_CMD_GETFAMILY and its attribute FAMILY_NAME (linux/genetlink.h), encoded and decoded by hand.
const CTRL_CMD_GETFAMILY = 3;
const CTRL_ATTR_FAMILY_ID = 1;
const CTRL_ATTR_FAMILY_NAME = 2;
connection.execute(
  {
    family: controller,
    command: CTRL_CMD_GETFAMILY,
    operation: 'find the controller',
    encode: (writer) => writer.string(CTRL_ATTR_FAMILY_NAME, 'nlctrl'),
  },
  (_command, attributes) => {
    while (attributes.next()) {
      if (attributes.type === CTRL_ATTR_FAMILY_ID) console.log(`id ${attributes.hostU16()}`);
      else if (attributes.type === CTRL_ATTR_FAMILY_NAME) console.log(`name ${attributes.string()}`);
    }
  },
);
connection.close();
