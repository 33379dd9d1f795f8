-- The database of calls, as Asterisk's manual has it; on the node that serves first alone.
CREATE DATABASE cdr;
CREATE USER asterisk@localhost IDENTIFIED BY 'cdr';
GRANT SELECT, INSERT ON cdr.* TO asterisk@localhost;
CREATE TABLE cdr.cdr (
    calldate DATETIME NOT NULL, clid VARCHAR(80) NOT NULL DEFAULT '', src VARCHAR(80) NOT NULL DEFAULT '',
    dst VARCHAR(80) NOT NULL DEFAULT '', dcontext VARCHAR(80) NOT NULL DEFAULT '',
    channel VARCHAR(80) NOT NULL DEFAULT '', dstchannel VARCHAR(80) NOT NULL DEFAULT '',
    lastapp VARCHAR(80) NOT NULL DEFAULT '', lastdata VARCHAR(80) NOT NULL DEFAULT '',
    duration INT NOT NULL DEFAULT 0, billsec INT NOT NULL DEFAULT 0, disposition VARCHAR(45) NOT NULL DEFAULT '',
    accountcode VARCHAR(20) NOT NULL DEFAULT '', uniqueid VARCHAR(150) NOT NULL DEFAULT '',
    linkedid VARCHAR(150) NOT NULL DEFAULT '', sequence INT NOT NULL DEFAULT 0,
    userfield VARCHAR(255) NOT NULL DEFAULT '',
    KEY (uniqueid)  -- not unique, as in most: what came twice would be seen
) ENGINE=InnoDB;
