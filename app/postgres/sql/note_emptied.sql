-- Note that a customer who was created for a seat has none any more, so that a worker looks only at such customers when
-- it deletes those that nobody has used. See app/customers/emptied.py.
create or replace function note_emptied() returns trigger language plpgsql as $$
begin
    update seat_customers s set emptied_at = clock_timestamp()
    where s.customer_id = old.customer_id and s.claimed_at is null and s.kept_at is null
      and not exists (select from memberships m where m.customer_id = old.customer_id);
    return null;
end $$;

create or replace trigger note_emptied after delete on memberships for each row execute function note_emptied();
